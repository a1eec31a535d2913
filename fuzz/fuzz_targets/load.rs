//! libFuzzer's door to [`waybill_fuzz::targets::record::load`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    waybill_fuzz::targets::record::load(data);
});
