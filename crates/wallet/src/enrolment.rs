//! Enrolment codes as text and as QR code.
//!
//! `WAYBILL1:` followed by upper-case base32 of the CBOR of [`Enrolment`] and four bytes of checksum: all of it in the
//! alphanumeric mode of QR codes, which keeps them small, and it can be typed or mailed where nothing can scan.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use thiserror::Error;
use waybill_protocol::patient::Enrolment;
use waybill_protocol::wire::{from_cbor, to_cbor};

use crate::text_code::{MAX_TEXT_BYTES, TextCode, TextError};

/// How every enrolment code begins; the digit is the version.
pub const ENROLMENT_PREFIX: &str = "WAYBILL1:";

const CODE: TextCode = TextCode { prefix: ENROLMENT_PREFIX, family: "WAYBILL", domain: b"waybill/1 enrolment text" };

/// Why a text is not an enrolment code. Never carries a character of it: the code inside is a secret until it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EnrolmentError {
    /// Does not begin with `WAYBILL1:`.
    #[error("this is not an enrolment code: one begins with {ENROLMENT_PREFIX}")]
    Prefix,
    /// Begins with `WAYBILL` and another number.
    #[error("this enrolment code is of another version; update the wallet")]
    Version,
    /// Longer than any QR code.
    #[error("the text is too long for an enrolment code")]
    TooLong,
    /// A character that no code contains.
    #[error("character {position} does not belong into an enrolment code")]
    Character {
        /// From 1, spaces not counted.
        position: usize,
    },
    /// The checksum fails.
    #[error("the enrolment code is incomplete or mistyped; scan it again")]
    Checksum,
    /// The checksum holds and the content is not an enrolment.
    #[error("the enrolment code is malformed; ask the registrar for a new one")]
    Malformed,
}

/// A text that no QR code can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the text is too long for a QR code")]
pub struct QrError;

/// The text of an enrolment code.
#[must_use]
pub fn enrolment_text(enrolment: &Enrolment) -> String {
    CODE.encode(&to_cbor(enrolment))
}

/// Reads an enrolment code, in any case and with any spaces and line breaks.
///
/// # Errors
/// [`EnrolmentError`].
pub fn parse_enrolment(text: &str) -> Result<Enrolment, EnrolmentError> {
    let content = CODE.decode(text)?;
    let enrolment: Enrolment =
        from_cbor("enrolment", &content, MAX_TEXT_BYTES).map_err(|_| EnrolmentError::Malformed)?;
    let address = &enrolment.mailbox;
    let plausible =
        address.starts_with("https://") && address.len() <= 512 && address.bytes().all(|b| b.is_ascii_graphic());
    if plausible { Ok(enrolment) } else { Err(EnrolmentError::Malformed) }
}

impl From<TextError> for EnrolmentError {
    fn from(error: TextError) -> Self {
        match error {
            TextError::Prefix => Self::Prefix,
            TextError::Version => Self::Version,
            TextError::TooLong => Self::TooLong,
            TextError::Character(position) => Self::Character { position },
            TextError::Checksum => Self::Checksum,
        }
    }
}

/// A QR code of half blocks, light on dark as terminals are, with its quiet zone; ends without a line break.
///
/// # Errors
/// [`QrError`] when the text does not fit.
pub fn qr_terminal(text: &str) -> Result<String, QrError> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).map_err(|_| QrError)?;
    let mut render = code.render::<Dense1x2>();
    Ok(render.dark_color(Dense1x2::Dark).light_color(Dense1x2::Light).quiet_zone(true).build())
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_crypto::keys::{HospitalKeys, HpkePublicKey, SigningKey};
    use waybill_protocol::ids::{HospitalId, Nonce};

    fn enrolment() -> Enrolment {
        Enrolment {
            hospital: HospitalId::parse("hospital-a.example").unwrap(),
            keys: HospitalKeys { signing: SigningKey::derive(&[7; 32]).public().clone(), hpke: HpkePublicKey([9; 32]) },
            mailbox: format!("https://relay.example:8443/mailbox/{}", "ab".repeat(32)),
            code: Nonce([3; 16]),
        }
    }

    #[test]
    fn text_reads_back_and_fits_a_qr_code_in_its_small_mode() {
        let text = enrolment_text(&enrolment());
        assert_eq!(parse_enrolment(&text), Ok(enrolment()));
        let lower = text.to_lowercase();
        let lines: Vec<&str> = lower.as_bytes().chunks(20).map(|c| std::str::from_utf8(c).unwrap()).collect();
        assert_eq!(parse_enrolment(&lines.join("\n ")), Ok(enrolment()));
        assert!(text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b':'));
        let picture = qr_terminal(&text).unwrap();
        let lines: Vec<&str> = picture.lines().collect();
        assert!(lines.len() > 20 && lines.iter().all(|line| line.chars().count() == lines[0].chars().count()));
        assert!(lines[0].chars().count() <= 80, "fits a terminal: {}", lines[0].chars().count());
        assert!(picture.chars().all(|c| " █▀▄\n".contains(c)));
    }

    #[test]
    fn wrong_texts_are_told_apart() {
        let text = enrolment_text(&enrolment());
        assert_eq!(parse_enrolment("HELLO"), Err(EnrolmentError::Prefix));
        assert_eq!(parse_enrolment(&text.replace("WAYBILL1", "WAYBILL2")), Err(EnrolmentError::Version));
        assert_eq!(parse_enrolment(&text[..text.len() - 2]), Err(EnrolmentError::Checksum));
        assert_eq!(parse_enrolment(ENROLMENT_PREFIX), Err(EnrolmentError::Checksum));
        let place = ENROLMENT_PREFIX.len() + 4;
        let mut mistyped = text.clone();
        let other = if &text[place..=place] == "A" { "B" } else { "A" };
        mistyped.replace_range(place..=place, other);
        assert_eq!(parse_enrolment(&mistyped), Err(EnrolmentError::Checksum));
        mistyped.replace_range(place..=place, "1");
        assert_eq!(parse_enrolment(&mistyped), Err(EnrolmentError::Character { position: place + 1 }));
        assert_eq!(parse_enrolment(&"A".repeat(5000)), Err(EnrolmentError::TooLong));
    }

    #[test]
    fn content_that_checks_and_is_no_enrolment_is_malformed() {
        let with_checksum = |content: &[u8]| parse_enrolment(&CODE.encode(content));
        assert_eq!(with_checksum(&[0x80]), Err(EnrolmentError::Malformed));
        let plain_http = Enrolment { mailbox: "http://relay.example/".to_owned(), ..enrolment() };
        assert_eq!(with_checksum(&to_cbor(&plain_http)), Err(EnrolmentError::Malformed));
        assert_eq!(with_checksum(&to_cbor(&enrolment())), Ok(enrolment()));
    }

    #[test]
    fn a_text_that_no_qr_code_holds_is_refused() {
        assert_eq!(qr_terminal(&"A".repeat(5000)), Err(QrError));
    }
}
