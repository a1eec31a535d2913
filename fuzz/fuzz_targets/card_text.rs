//! libFuzzer's door to [`waybill_fuzz::targets::wallet::card_text`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    waybill_fuzz::targets::wallet::card_text(data);
});
