//! Keys: tuples encoded so that byte order is tuple order and a shorter tuple is a prefix of its extensions.

use std::fmt;

const BYTES: u8 = 0x01;
const TEXT: u8 = 0x02;
const NUMBER: u8 = 0x03;
const FIXED: u8 = 0x04;
// inside text and byte strings a zero is followed by one of these
const END: u8 = 0x00;
const ESCAPED: u8 = 0x01;

/// The name of a row inside its [`crate::Space`], or the prefix of many.
///
/// Bytes: the parts one after another, each self-delimiting. Text and byte strings: a type byte, the content with
/// `00` written as `00 01`, then `00 00`. Numbers: a type byte and eight bytes, most significant first. Fixed byte strings: a type
/// byte, a length byte, the content.
///
/// Security: keys can hold pseudonyms, so `Debug` shows the length only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Key(Vec<u8>);

/// Builds a [`Key`] part by part.
#[derive(Default)]
pub struct KeyBuilder(Vec<u8>);

/// Reads the parts of a [`Key`] back in the order in which they were written.
pub struct KeyReader<'a>(&'a [u8]);

/// A key whose bytes are not the expected parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The next part is absent or of another kind.
    #[error("the key holds another kind of part here")]
    Kind,
    /// The part is cut short or badly escaped.
    #[error("the key part is malformed")]
    Malformed,
    /// Parts are left over.
    #[error("the key holds more parts than expected")]
    Trailing,
}

impl Key {
    /// Starts a key.
    pub fn build() -> KeyBuilder {
        KeyBuilder::default()
    }

    /// The prefix of every key.
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// Takes bytes that a [`Key`] gave out earlier.
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The encoded bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The encoded bytes, owned.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Continues this key with further parts.
    pub fn extend(&self) -> KeyBuilder {
        KeyBuilder(self.0.clone())
    }

    /// Whether this key lies under `prefix`.
    pub fn starts_with(&self, prefix: &Key) -> bool {
        self.0.starts_with(&prefix.0)
    }

    /// Reads the parts from the start.
    pub fn read(&self) -> KeyReader<'_> {
        KeyReader(&self.0)
    }

    /// Reads the parts after `prefix`, or nothing when the key does not lie under it.
    pub fn read_after(&self, prefix: &Key) -> Option<KeyReader<'_>> {
        self.0.strip_prefix(prefix.0.as_slice()).map(KeyReader)
    }

    /// The smallest byte string above every key under this prefix; nothing when there is none.
    pub(crate) fn prefix_end(&self) -> Option<Vec<u8>> {
        let mut end = self.0.clone();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Some(end);
            }
        }
        None
    }
}

impl KeyBuilder {
    /// Appends a text part.
    pub fn text(self, text: &str) -> Self {
        self.escaped(TEXT, text.as_bytes())
    }

    /// Appends a byte string part of any length.
    pub fn bytes(self, bytes: &[u8]) -> Self {
        self.escaped(BYTES, bytes)
    }

    /// Appends a number part; numeric order is key order.
    pub fn number(mut self, number: u64) -> Self {
        self.0.push(NUMBER);
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Appends a byte string part whose length is part of its type, such as a hash.
    ///
    /// `N` is at most 255, checked when the program is compiled.
    pub fn fixed<const N: usize>(mut self, bytes: &[u8; N]) -> Self {
        const { assert!(N <= u8::MAX as usize, "the length of a fixed part takes one byte") };
        self.0.push(FIXED);
        self.0.push(N as u8);
        self.0.extend_from_slice(bytes);
        self
    }

    /// The finished key.
    pub fn done(self) -> Key {
        Key(self.0)
    }

    fn escaped(mut self, kind: u8, content: &[u8]) -> Self {
        self.0.push(kind);
        for &byte in content {
            self.0.push(byte);
            if byte == 0 {
                self.0.push(ESCAPED);
            }
        }
        self.0.extend_from_slice(&[0, END]);
        self
    }
}

impl<'a> KeyReader<'a> {
    /// Reads a text part.
    pub fn text(&mut self) -> Result<String, KeyError> {
        String::from_utf8(self.escaped(TEXT)?).map_err(|_| KeyError::Malformed)
    }

    /// Reads a byte string part.
    pub fn bytes(&mut self) -> Result<Vec<u8>, KeyError> {
        self.escaped(BYTES)
    }

    /// Reads a number part.
    pub fn number(&mut self) -> Result<u64, KeyError> {
        self.kind(NUMBER)?;
        Ok(u64::from_be_bytes(self.take()?))
    }

    /// Reads a fixed byte string part of exactly `N` bytes.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], KeyError> {
        self.kind(FIXED)?;
        let [length] = self.take()?;
        if usize::from(length) != N {
            return Err(KeyError::Kind);
        }
        self.take()
    }

    /// Succeeds when every part was read.
    pub fn end(self) -> Result<(), KeyError> {
        if self.0.is_empty() { Ok(()) } else { Err(KeyError::Trailing) }
    }

    fn kind(&mut self, kind: u8) -> Result<(), KeyError> {
        match self.0.split_first() {
            Some((&found, rest)) if found == kind => {
                self.0 = rest;
                Ok(())
            }
            _ => Err(KeyError::Kind),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], KeyError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(KeyError::Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    fn escaped(&mut self, kind: u8) -> Result<Vec<u8>, KeyError> {
        self.kind(kind)?;
        let mut content = Vec::new();
        loop {
            let [byte] = self.take()?;
            if byte != 0 {
                content.push(byte);
                continue;
            }
            match self.take()? {
                [END] => return Ok(content),
                [ESCAPED] => content.push(0),
                _ => return Err(KeyError::Malformed),
            }
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair(text: &str, bytes: &[u8], number: u64) -> Key {
        Key::build().text(text).bytes(bytes).number(number).fixed(&[7; 16]).done()
    }

    #[test]
    fn a_shorter_tuple_is_a_prefix_only_of_its_extensions() {
        let a = Key::build().text("a").done();
        assert!(pair("a", b"", 0).starts_with(&a));
        assert!(!pair("ab", b"", 0).starts_with(&a));
        assert!(!pair("a\0", b"", 0).starts_with(&a));
    }

    #[test]
    fn other_kinds_and_cut_keys_are_refused() {
        let key = Key::build().text("a").number(1).done();
        assert_eq!(key.read().number(), Err(KeyError::Kind));
        let mut reader = key.read();
        assert_eq!(reader.text().as_deref(), Ok("a"));
        assert_eq!(reader.end(), Err(KeyError::Trailing));
        let cut = Key::from_bytes(key.as_bytes()[..key.as_bytes().len() - 1].to_vec());
        let mut reader = cut.read();
        reader.text().unwrap();
        assert_eq!(reader.number(), Err(KeyError::Malformed));
        assert_eq!(Key::build().fixed(&[1; 3]).done().read().fixed::<4>(), Err(KeyError::Kind));
    }

    #[test]
    fn the_end_of_a_prefix_skips_trailing_ff() {
        assert_eq!(Key::from_bytes(vec![1, 0xff]).prefix_end(), Some(vec![2]));
        assert_eq!(Key::from_bytes(vec![0xff]).prefix_end(), None);
        assert_eq!(Key::empty().prefix_end(), None);
    }

    #[test]
    fn debug_hides_the_content() {
        assert_eq!(format!("{:?}", Key::build().text("pid").done()), "Key(6 bytes)");
    }

    proptest! {
        #[test]
        fn byte_order_is_tuple_order(
            a in ("[\0-\u{3}a-c]{0,4}", prop::collection::vec(prop::sample::select(vec![0u8, 1, 254, 255]), 0..4), any::<u64>()),
            b in ("[\0-\u{3}a-c]{0,4}", prop::collection::vec(prop::sample::select(vec![0u8, 1, 254, 255]), 0..4), any::<u64>()),
        ) {
            prop_assert_eq!(pair(&a.0, &a.1, a.2).cmp(&pair(&b.0, &b.1, b.2)), a.cmp(&b));
        }

        #[test]
        fn parts_read_back(text in any::<String>(), bytes in any::<Vec<u8>>(), number in any::<u64>()) {
            let key = pair(&text, &bytes, number);
            let mut reader = key.read();
            prop_assert_eq!(reader.text().unwrap(), text);
            prop_assert_eq!(reader.bytes().unwrap(), bytes);
            prop_assert_eq!(reader.number().unwrap(), number);
            prop_assert_eq!(reader.fixed::<16>().unwrap(), [7; 16]);
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
            let key = Key::from_bytes(bytes);
            let _ = key.read().text();
            let _ = key.read().bytes();
            let _ = key.read().number();
            let _ = key.read().fixed::<32>();
        }
    }
}
