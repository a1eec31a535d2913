//! libFuzzer's door to [`waybill_fuzz::targets::record::frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    waybill_fuzz::targets::record::frame(data);
});
