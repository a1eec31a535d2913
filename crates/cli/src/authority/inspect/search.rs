//! Searches bytes for many terms at once, each in the encodings that programs write.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use waybill_crypto::digest::sha256;

use super::chance::{Alphabet, Stretches};
use super::terms::{Term, text_bits};

/// How many bytes of a needle the index goes by; no needle is shorter.
const HEAD: usize = 5;

/// One form of one term.
struct Needle {
    term: usize,
    encoding: &'static str,
    bytes: Vec<u8>,
}

/// All forms of all terms, ready to be searched for.
pub struct Searcher {
    folded: Index,
    exact: Index,
}

#[derive(Default)]
struct Index {
    needles: Vec<Needle>,
    heads: HashMap<[u8; HEAD], Vec<usize>>,
}

/// A term that was found, and in which form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    /// The term's index.
    pub term: usize,
    /// `text`, `json`, `utf-16`, `hex`, `base64`, `sha-256`.
    pub encoding: &'static str,
}

impl Index {
    fn add(&mut self, term: usize, encoding: &'static str, bytes: Vec<u8>) {
        let Some(head) = bytes.first_chunk::<HEAD>() else { return };
        self.heads.entry(*head).or_default().push(self.needles.len());
        self.needles.push(Needle { term, encoding, bytes });
    }

    fn search(&self, bytes: &[u8], hits: &mut BTreeMap<Hit, usize>) {
        for (at, head) in bytes.windows(HEAD).enumerate() {
            let Some(found) = head.try_into().ok().and_then(|head: [u8; HEAD]| self.heads.get(&head)) else { continue };
            for needle in found.iter().map(|index| &self.needles[*index]) {
                if bytes[at..].starts_with(&needle.bytes) {
                    hits.entry(Hit { term: needle.term, encoding: needle.encoding }).or_insert(at);
                }
            }
        }
    }
}

impl Searcher {
    /// Prepares the forms of terms.
    pub fn new(terms: &[Term]) -> Self {
        let (mut folded, mut exact) = (Index::default(), Index::default());
        for (index, term) in terms.iter().enumerate() {
            if term.is_text {
                let text = String::from_utf8_lossy(&term.bytes);
                folded.add(index, "text", term.bytes.to_ascii_lowercase());
                let escaped: String = text.encode_utf16().map(json_escape).collect();
                if escaped != text {
                    folded.add(index, "json", escaped.to_ascii_lowercase().into_bytes());
                }
                for bytes in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
                    let wide: Vec<u8> = text.encode_utf16().flat_map(bytes).collect();
                    folded.add(index, "utf-16", wide.to_ascii_lowercase());
                }
            } else {
                exact.add(index, "bytes", term.bytes.clone());
            }
            folded.add(index, "hex", hex::encode(&term.bytes).into_bytes());
            // A hash without a secret is the value itself, to whoever can guess it.
            let digest = sha256(&[&term.bytes]);
            exact.add(index, "sha-256", digest.0[..16].to_vec());
            folded.add(index, "sha-256", hex::encode(&digest.0[..16]).into_bytes());
            for shift in 0..3 {
                let forms = [
                    base64_middle(&STANDARD_NO_PAD, &term.bytes, shift),
                    base64_middle(&URL_SAFE_NO_PAD, &term.bytes, shift),
                ];
                // Most terms are written alike in both alphabets.
                BTreeSet::from(forms).into_iter().for_each(|text| exact.add(index, "base64", text));
            }
        }
        Self { folded, exact }
    }

    /// Every term that is in these bytes, and where it first begins.
    pub fn search(&self, bytes: &[u8], hits: &mut BTreeMap<Hit, usize>) {
        self.exact.search(bytes, hits);
        self.folded.search(&bytes.to_ascii_lowercase(), hits);
    }

    /// How many findings there would be if the characters of what was searched were random; see [`super::chance`].
    pub fn expected_by_chance(&self, terms: &[Term], stretches: &Stretches) -> f64 {
        let needles = self.folded.needles.iter().chain(&self.exact.needles);
        let expected = needles.map(|needle| {
            let length = needle.bytes.len();
            let (alphabet, bits) = match needle.encoding {
                "text" | "json" if needle.bytes.iter().all(|b| b.is_ascii_digit() || b.is_ascii_punctuation()) => {
                    (Alphabet::Digits, text_bits(&needle.bytes))
                }
                "text" | "json" => (Alphabet::Text, text_bits(&needle.bytes)),
                "utf-16" => (Alphabet::Wide, terms[needle.term].bits()),
                "base64" => (Alphabet::Base64, length as f64 * 6.0),
                // The hash is searched for as bytes and in hex digits.
                "hex" => (Alphabet::Hex, length as f64 * 4.0),
                "sha-256" if length == 32 => (Alphabet::Hex, length as f64 * 4.0),
                _ => (Alphabet::Bytes, length as f64 * 8.0),
            };
            stretches.places(alphabet, length) * (-bits).exp2()
        });
        expected.sum()
    }
}

/// A UTF-16 unit as JSON writes it when it writes ASCII only.
fn json_escape(unit: u16) -> String {
    match u8::try_from(unit) {
        Ok(b'"') => "\\\"".to_owned(),
        Ok(b'\\') => "\\\\".to_owned(),
        Ok(b'\n') => "\\n".to_owned(),
        Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
        _ => format!("\\u{unit:04x}"),
    }
}

/// What of a term's base64 is the same whatever stands around it, when it begins `shift` bytes into a group of three.
fn base64_middle(engine: &impl base64::Engine, bytes: &[u8], shift: usize) -> Vec<u8> {
    let padded = [&[0; 2][..shift], bytes].concat();
    let text = engine.encode(&padded[..]).into_bytes();
    let first = (shift * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    text.get(first..last).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    fn found(term: &str, haystack: &[u8]) -> Vec<&'static str> {
        let terms = [Term { kind: "name", bytes: term.as_bytes().to_vec(), is_text: true }];
        let mut hits = BTreeMap::new();
        Searcher::new(&terms).search(haystack, &mut hits);
        hits.into_keys().map(|hit| hit.encoding).collect()
    }

    #[test]
    fn a_term_is_found_in_every_encoding_and_at_every_offset() {
        let name = "Þórsdóttir-Müller";
        let wide = |bytes: fn(u16) -> [u8; 2]| name.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        let escaped: String = name.encode_utf16().map(json_escape).collect();
        let upper = name.to_ascii_uppercase();
        for before in 0..4 {
            let around = |middle: &[u8]| [&vec![b'x'; before][..], middle, b"yz"].concat();
            assert_eq!(found(name, &around(upper.as_bytes())), ["text"]);
            assert_eq!(found(name, &around(escaped.as_bytes())), ["json"]);
            assert_eq!(found(name, &around(&wide(u16::to_le_bytes))), ["utf-16"]);
            assert_eq!(found(name, &around(&wide(u16::to_be_bytes))), ["utf-16"]);
            assert_eq!(found(name, &around(hex::encode_upper(name).as_bytes())), ["hex"]);
            assert_eq!(found(name, STANDARD.encode(around(name.as_bytes())).as_bytes()), ["base64"]);
            assert_eq!(found(name, URL_SAFE_NO_PAD.encode(around(name.as_bytes())).as_bytes()), ["base64"]);
            assert_eq!(found(name, &around(&sha256(&[name.as_bytes()]).0)), ["sha-256"]);
        }
        assert!(found(name, b"somebody else altogether").is_empty());
    }

    #[test]
    fn chance_is_told_by_what_was_searched_and_hardly_exists_for_longer_forms() {
        let term = |text: &str| Term { kind: "value", bytes: text.as_bytes().to_vec(), is_text: true };
        let expected = |text: &str, searched: &[u8]| {
            let terms = [term(text)];
            let mut stretches = Stretches::default();
            stretches.measure(searched);
            Searcher::new(&terms).expected_by_chance(&terms, &stretches)
        };
        // A million bytes without any stretch of text: a date has no place there as text, and hardly one in any other form.
        let binary: Vec<u8> = (0..=255).cycle().filter(|b: &u8| !b.is_ascii()).take(1 << 20).collect();
        let in_binary = expected("1947-12-04", &binary);
        assert!(in_binary > 0.0 && in_binary < 1e-30, "{in_binary:e}");
        // Among as many digits it has 2^20 places and 30 bits, and every other form of it is far longer.
        let in_digits = expected("1947-12-04", &vec![b'7'; 1 << 20]);
        let by_hand = f64::from((1 << 20) - 9) / f64::from(1 << 30);
        assert!((in_digits / by_hand - 1.0).abs() < 1e-3, "{in_digits:e} {by_hand:e}");
        assert!(expected("Okonkwo-Lovelace", &vec![b'a'; 1 << 20]) < 1e-11);
        // A term of six letters is met sooner, and it says so.
        let short = expected("Okonkw", &vec![b'a'; 1 << 16]);
        assert!(short > f64::from((1 << 16) - 5) / f64::from(1 << 24), "{short:e}");
    }
}
