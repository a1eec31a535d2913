//! libFuzzer's door to [`waybill_fuzz::targets::servers::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    waybill_fuzz::targets::servers::config(data);
});
