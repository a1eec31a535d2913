//! libFuzzer's door to [`waybill_fuzz::targets::messages::sealed`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    waybill_fuzz::targets::messages::sealed(data);
});
