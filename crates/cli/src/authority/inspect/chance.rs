//! How many findings chance alone would give.
//!
//! A needle can be met by chance only where a stretch of its own alphabet is at least as long as it is: a date among digits, hex among
//! hex digits, a name among letters. So such stretches are measured in what was searched, and then taken as if their characters were
//! drawn at random. Real text is no random text: it has fewer different characters, which the low bits of a letter and a digit allow
//! for, and it repeats itself, which nothing allows for.

use std::collections::BTreeMap;

/// In what kind of stretch a needle can lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alphabet {
    /// Any bytes.
    Bytes,
    /// Printable ASCII.
    Text,
    /// Digits and punctuation, as in dates and numbers.
    Digits,
    /// Printable ASCII, each beside a zero byte.
    Wide,
    /// Hex digits.
    Hex,
    /// What base64 is written in, in either alphabet.
    Base64,
}

fn is_text(byte: u8) -> bool {
    byte == b' ' || byte.is_ascii_graphic()
}

impl Alphabet {
    fn has(self, byte: u8) -> bool {
        match self {
            Self::Bytes => true,
            Self::Text => is_text(byte),
            Self::Digits => byte.is_ascii_digit() || byte.is_ascii_punctuation(),
            Self::Wide => byte == 0 || is_text(byte),
            Self::Hex => byte.is_ascii_hexdigit(),
            Self::Base64 => byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte),
        }
    }
}

/// How many stretches of each alphabet and length there were.
#[derive(Debug, Default)]
pub struct Stretches(BTreeMap<(Alphabet, usize), u64>);

impl Stretches {
    /// Adds what is in these bytes.
    pub fn measure(&mut self, bytes: &[u8]) {
        self.add(Alphabet::Bytes, bytes.len());
        for alphabet in [Alphabet::Text, Alphabet::Digits, Alphabet::Hex, Alphabet::Base64] {
            bytes.split(|byte| !alphabet.has(*byte)).for_each(|stretch| self.add(alphabet, stretch.len()));
        }
        for stretch in bytes.split(|byte| !Alphabet::Wide.has(*byte)) {
            // Of two neighbours one is zero.
            let alternating = stretch.chunk_by(|before, byte| (*before == 0) != (*byte == 0));
            alternating.for_each(|stretch| self.add(Alphabet::Wide, stretch.len()));
        }
    }

    fn add(&mut self, alphabet: Alphabet, length: usize) {
        if length > 0 {
            *self.0.entry((alphabet, length)).or_insert(0) += 1;
        }
    }

    /// At how many places a needle of this length could begin.
    pub fn places(&self, alphabet: Alphabet, length: usize) -> f64 {
        let long_enough = self.0.range((alphabet, length.max(1))..=(alphabet, usize::MAX));
        long_enough.map(|((_, held), count)| (held + 1 - length) as f64 * *count as f64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needle_has_a_place_only_in_a_stretch_of_its_alphabet_that_is_long_enough() {
        let mut stretches = Stretches::default();
        stretches.measure(b"\x01\x021947-12-04\xff\xfedeadbeef Okonkwo\x80");
        let places = |alphabet, length| stretches.places(alphabet, length) as u64;
        assert_eq!(places(Alphabet::Bytes, 10), 31 - 9);
        assert_eq!(
            (places(Alphabet::Digits, 10), places(Alphabet::Digits, 9), places(Alphabet::Digits, 11)),
            (1, 2, 0)
        );
        assert_eq!((places(Alphabet::Hex, 8), places(Alphabet::Hex, 9)), (1, 0));
        assert_eq!((places(Alphabet::Text, 16), places(Alphabet::Text, 17)), (1, 0));
        assert_eq!(places(Alphabet::Wide, 2), 0);
        let wide: Vec<u8> = "Okonkwo".encode_utf16().flat_map(u16::to_le_bytes).collect();
        stretches.measure(&wide);
        assert_eq!((stretches.places(Alphabet::Wide, 14), stretches.places(Alphabet::Text, 2)), (1.0, 9.0 + 15.0));
    }
}
