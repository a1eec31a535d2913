//! libFuzzer's door to [`waybill_fuzz::targets::record::chunk`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    waybill_fuzz::targets::record::chunk(data);
});
