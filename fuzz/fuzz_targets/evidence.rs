//! libFuzzer's door to [`waybill_fuzz::targets::messages::evidence`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    waybill_fuzz::targets::messages::evidence(data);
});
