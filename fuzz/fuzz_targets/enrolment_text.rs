//! libFuzzer's door to [`waybill_fuzz::targets::wallet::enrolment_text`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    waybill_fuzz::targets::wallet::enrolment_text(data);
});
