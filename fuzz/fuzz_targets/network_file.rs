//! libFuzzer's door to [`waybill_fuzz::targets::servers::network_file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    waybill_fuzz::targets::servers::network_file(data);
});
