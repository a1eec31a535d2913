//! The recovery code: the root secret on paper.
//!
//! Eight groups of eight characters of Crockford's base32. Seven characters of a group carry data, the eighth checks them and
//! the group's place, so that a typing error is found *and located*; 24 of the 280 bits check the whole.

use std::fmt;

use thiserror::Error;
use waybill_crypto::digest::sha256;
use waybill_crypto::pseudonym::RootSecret;
use zeroize::Zeroizing;

/// How many groups a code has.
pub const GROUPS: usize = 8;
/// How many characters a group has, the check character included.
pub const GROUP_CHARACTERS: usize = 8;

const DATA_SYMBOLS: usize = GROUP_CHARACTERS - 1;
const ROOT_BYTES: usize = 32;
const PAYLOAD_BYTES: usize = GROUPS * DATA_SYMBOLS * 5 / 8;
/// Longest text that is looked at. Units: bytes.
const MAX_TEXT_BYTES: usize = 1024;
/// Crockford's alphabet: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Why a text is not a recovery code. Never carries a character of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecoveryError {
    /// Not 64 characters.
    #[error("a recovery code has {} characters in {GROUPS} groups; this has {found}", GROUPS * GROUP_CHARACTERS)]
    Length {
        /// How many letters and digits there are.
        found: usize,
    },
    /// A group has more or fewer than eight characters.
    #[error("group {group} has {found} characters instead of {GROUP_CHARACTERS}")]
    GroupLength {
        /// From 1.
        group: usize,
        /// Its characters.
        found: usize,
    },
    /// A character that no code contains.
    #[error("group {group}, character {position}: not a letter or digit of a recovery code")]
    Character {
        /// From 1.
        group: usize,
        /// From 1.
        position: usize,
    },
    /// These groups do not check.
    #[error("there is a typing error in group {}", list(groups))]
    Typo {
        /// From 1, ascending.
        groups: Vec<usize>,
    },
    /// Every group checks, but the whole does not: several errors that cancel out.
    #[error("every group looks right but the code as a whole does not; compare it with the paper again")]
    Checksum,
}

fn list(groups: &[usize]) -> String {
    groups.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// The root secret in the form a person can write down.
///
/// Security: whoever reads the code is the patient. Redacted in `Debug`; texts made of it are wiped when dropped.
#[derive(Clone)]
pub struct RecoveryCode {
    root: RootSecret,
}

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(redacted)")
    }
}

impl RecoveryCode {
    /// The code of a root secret.
    #[must_use]
    pub fn new(root: RootSecret) -> Self {
        Self { root }
    }

    /// The secret.
    #[must_use]
    pub fn root(&self) -> &RootSecret {
        &self.root
    }

    /// One line: eight groups joined by hyphens.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let symbols = self.symbols();
        let mut text = Zeroizing::new(String::with_capacity(GROUPS * (GROUP_CHARACTERS + 1)));
        for (index, group) in symbols.chunks_exact(DATA_SYMBOLS).enumerate() {
            if index > 0 {
                text.push('-');
            }
            let check = check_symbol(index, group);
            text.extend(group.iter().chain([&check]).map(|symbol| char::from(ALPHABET[usize::from(*symbol)])));
        }
        text
    }

    /// The form to print: numbered groups, two on a line. [`Self::parse`] reads it back.
    #[must_use]
    pub fn printed(&self) -> Zeroizing<String> {
        let text = self.to_text();
        let mut out = Zeroizing::new(String::with_capacity(128));
        for (index, group) in text.split('-').enumerate() {
            let end = if index % 2 == 0 { "   " } else { "\n" };
            let number = index + 1;
            // Piece by piece: no formatted copy of a group is left behind.
            out.push_str(&format!("{number}: "));
            out.push_str(&group[..GROUP_CHARACTERS / 2]);
            out.push(' ');
            out.push_str(&group[GROUP_CHARACTERS / 2..]);
            out.push_str(end);
        }
        out
    }

    /// Reads a code as people type it: any case, spaces and hyphens anywhere, I and L for 1, O for 0, group numbers (`3:`) or not.
    ///
    /// # Errors
    /// [`RecoveryError`], naming the groups to look at.
    pub fn parse(text: &str) -> Result<Self, RecoveryError> {
        let symbols = read_symbols(text)?;
        let wrong: Vec<usize> = symbols
            .chunks_exact(GROUP_CHARACTERS)
            .enumerate()
            .filter(|(index, group)| check_symbol(*index, &group[..DATA_SYMBOLS]) != group[DATA_SYMBOLS])
            .map(|(index, _)| index + 1)
            .collect();
        if !wrong.is_empty() {
            return Err(RecoveryError::Typo { groups: wrong });
        }
        let mut payload = Zeroizing::new([0u8; PAYLOAD_BYTES]);
        let data = symbols.chunks_exact(GROUP_CHARACTERS).flat_map(|group| &group[..DATA_SYMBOLS]);
        for (index, symbol) in data.enumerate() {
            for bit in 0..5 {
                let place = index * 5 + bit;
                payload[place / 8] |= (symbol >> (4 - bit) & 1) << (7 - place % 8);
            }
        }
        let mut root = Zeroizing::new([0u8; ROOT_BYTES]);
        root.copy_from_slice(&payload[..ROOT_BYTES]);
        if payload[ROOT_BYTES..] != checksum(&root) {
            return Err(RecoveryError::Checksum);
        }
        Ok(Self { root: RootSecret::from_bytes(*root) })
    }

    /// The data as 56 symbols of five bits.
    fn symbols(&self) -> Zeroizing<Vec<u8>> {
        let mut payload = Zeroizing::new([0u8; PAYLOAD_BYTES]);
        payload[..ROOT_BYTES].copy_from_slice(self.root.expose());
        payload[ROOT_BYTES..].copy_from_slice(&checksum(self.root.expose()));
        let bit = |place: usize| payload[place / 8] >> (7 - place % 8) & 1;
        let symbol = |index: usize| (0..5).fold(0, |symbol, offset| symbol << 1 | bit(index * 5 + offset));
        Zeroizing::new((0..GROUPS * DATA_SYMBOLS).map(symbol).collect())
    }
}

/// Security: 24 bits of a hash of 256 secret bits tell nothing that helps to guess them.
fn checksum(root: &[u8; ROOT_BYTES]) -> [u8; PAYLOAD_BYTES - ROOT_BYTES] {
    let digest = sha256(&[b"waybill/1 recovery code", root]);
    [digest.0[0], digest.0[1], digest.0[2]]
}

/// Letters and digits as 64 symbols.
fn read_symbols(text: &str) -> Result<Zeroizing<Vec<u8>>, RecoveryError> {
    let bounded = text.get(..MAX_TEXT_BYTES).unwrap_or(text);
    let separator = |c: char| c.is_whitespace() || c == '-';
    let tokens: Vec<&str> =
        bounded.split(separator).filter(|token| !token.is_empty() && !token.ends_with(':')).collect();
    let found = tokens.iter().map(|token| token.chars().count()).sum();
    // When the separators make eight groups, a missing character can be located.
    if tokens.len() == GROUPS {
        let lengths = tokens.iter().map(|token| token.chars().count()).enumerate();
        if let Some((index, found)) = lengths.into_iter().find(|(_, length)| *length != GROUP_CHARACTERS) {
            return Err(RecoveryError::GroupLength { group: index + 1, found });
        }
    }
    if found != GROUPS * GROUP_CHARACTERS || text.len() > MAX_TEXT_BYTES {
        return Err(RecoveryError::Length { found });
    }
    let characters = tokens.iter().flat_map(|token| token.chars()).enumerate();
    let symbols = characters.map(|(place, character)| {
        let wrong =
            RecoveryError::Character { group: place / GROUP_CHARACTERS + 1, position: place % GROUP_CHARACTERS + 1 };
        symbol_of(character).ok_or(wrong)
    });
    let mut out = Zeroizing::new(Vec::with_capacity(GROUPS * GROUP_CHARACTERS));
    for symbol in symbols {
        out.push(symbol?);
    }
    Ok(out)
}

fn symbol_of(character: char) -> Option<u8> {
    let byte = match u8::try_from(character).ok()?.to_ascii_uppercase() {
        b'I' | b'L' => b'1',
        b'O' => b'0',
        other => other,
    };
    ALPHABET.iter().position(|letter| *letter == byte).and_then(|index| u8::try_from(index).ok())
}

/// A weighted sum in the field of 32 elements, with different weights for every place: finds every single wrong character,
/// every exchange of two, and every group in another group's place.
fn check_symbol(group: usize, data: &[u8]) -> u8 {
    let place = (u8::try_from(group).expect("there are eight groups"), DATA_SYMBOLS + 1);
    let data = data.iter().enumerate().map(|(index, symbol)| (*symbol, index + 1));
    data.chain([place]).fold(0, |sum, (symbol, power)| sum ^ times_power(symbol, power))
}

/// `symbol` times the generator to a power, in GF(2)[x] / (x^5 + x^2 + 1).
fn times_power(symbol: u8, power: usize) -> u8 {
    (0..power).fold(symbol, |value, _| if value & 0x10 == 0 { value << 1 } else { (value << 1) ^ 0b10_0101 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> RecoveryCode {
        RecoveryCode::new(RootSecret::from_bytes(std::array::from_fn(|i| (i * 37 + 11) as u8)))
    }

    fn parse(text: &str) -> Result<[u8; 32], RecoveryError> {
        RecoveryCode::parse(text).map(|code| *code.root().expose())
    }

    #[test]
    fn what_is_printed_reads_back_however_it_is_typed() {
        let (code, root) = (code(), *code().root().expose());
        let text = code.to_text();
        assert_eq!(text.len(), 71);
        assert_eq!(parse(&text), Ok(root));
        assert_eq!(parse(&code.printed()), Ok(root));
        assert_eq!(parse(&text.to_lowercase().replace('-', "  ")), Ok(root));
        assert_eq!(parse(&text.replace('-', "")), Ok(root));
        assert_eq!(parse(&text.replace('1', "l").replace('0', "O")), Ok(root));
        for byte in [0, 0xff] {
            let edge = RecoveryCode::new(RootSecret::from_bytes([byte; 32]));
            assert_eq!(parse(&edge.to_text()), Ok([byte; 32]));
        }
    }

    #[test]
    fn every_wrong_character_is_found_in_its_group() {
        let text = code().to_text().replace('-', "");
        for place in 0..text.len() {
            for letter in ALPHABET.iter().map(|byte| char::from(*byte)) {
                let mut typed: Vec<char> = text.chars().collect();
                if std::mem::replace(&mut typed[place], letter) == letter {
                    continue;
                }
                let wrong = parse(&typed.into_iter().collect::<String>());
                assert_eq!(wrong, Err(RecoveryError::Typo { groups: vec![place / 8 + 1] }));
            }
        }
    }

    #[test]
    fn exchanged_characters_and_groups_are_found() {
        let text = code().to_text();
        let mut groups: Vec<&str> = text.split('-').collect();
        for first in 0..8 {
            for second in first + 1..8 {
                let mut typed: Vec<char> = groups[2].chars().collect();
                typed.swap(first, second);
                let typed: String = typed.into_iter().collect();
                if typed != groups[2] {
                    let wrong = text.replace(groups[2], &typed);
                    assert_eq!(parse(&wrong), Err(RecoveryError::Typo { groups: vec![3] }));
                }
            }
        }
        groups.swap(4, 6);
        assert_eq!(parse(&groups.join("-")), Err(RecoveryError::Typo { groups: vec![5, 7] }));
    }

    #[test]
    fn errors_that_cancel_out_in_a_group_are_found_by_the_whole() {
        let text = code().to_text();
        let group = text.split('-').next().unwrap();
        let mut data: Vec<u8> = group.chars().map(|c| symbol_of(c).unwrap()).collect();
        data[0] ^= 1;
        data[1] ^= 3;
        data[7] = check_symbol(0, &data[..7]);
        let forged: String = data.iter().map(|s| char::from(ALPHABET[usize::from(*s)])).collect();
        assert_eq!(parse(&text.replacen(group, &forged, 1)), Err(RecoveryError::Checksum));
    }

    #[test]
    fn missing_and_foreign_characters_are_located_and_long_texts_are_bounded() {
        let text = code().to_text();
        let groups: Vec<&str> = text.split('-').collect();
        let short = text.replace(groups[3], &groups[3][..7]);
        assert_eq!(parse(&short), Err(RecoveryError::GroupLength { group: 4, found: 7 }));
        assert_eq!(parse(&text[..text.len() - 9]), Err(RecoveryError::Length { found: 56 }));
        assert_eq!(parse(""), Err(RecoveryError::Length { found: 0 }));
        let foreign = format!("{}?", &text[..text.len() - 1]);
        assert_eq!(parse(&foreign), Err(RecoveryError::Character { group: 8, position: 8 }));
        assert!(parse(&text.replace('-', &" ".repeat(200))).is_err());
        assert!(parse(&"é".repeat(4000)).is_err());
        assert!(parse("ßßßßßßßß").is_err());
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", code()), "RecoveryCode(redacted)");
    }
}
