//! libFuzzer's door to [`waybill_fuzz::targets::servers::page`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    waybill_fuzz::targets::servers::page(data);
});
