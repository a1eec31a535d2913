//! RFC 8949 section 4.2.1, written a second time and by hand: what the parsers take must be deterministic CBOR for this reader too.

/// Whether the bytes are exactly one item in the deterministic encoding.
///
/// The protocol's structures need no floats, no maps and no simple values but false, true and null; none of them is taken here.
#[must_use]
pub fn is_deterministic(bytes: &[u8]) -> bool {
    item(bytes, 0) == Some(&[])
}

/// Reads one item and gives what is left.
fn item(bytes: &[u8], depth: u8) -> Option<&[u8]> {
    let (&initial, rest) = bytes.split_first()?;
    let (major, info) = (initial >> 5, initial & 0x1f);
    if major == 7 {
        return matches!(info, 20..=22).then_some(rest);
    }
    let (number, mut rest) = argument(info, rest)?;
    let length = usize::try_from(number).ok();
    match major {
        0 | 1 => Some(rest),
        2 => rest.get(length?..),
        3 => {
            std::str::from_utf8(rest.get(..length?)?).ok()?;
            rest.get(length?..)
        }
        4 if depth < 32 => {
            for _ in 0..number {
                rest = item(rest, depth + 1)?;
            }
            Some(rest)
        }
        _ => None,
    }
}

/// The argument of an item's head, in its shortest form only.
fn argument(info: u8, rest: &[u8]) -> Option<(u64, &[u8])> {
    let (bytes, least) = match info {
        0..=23 => return Some((u64::from(info), rest)),
        24 => (1, 24),
        25 => (2, 1 << 8),
        26 => (4, 1 << 16),
        27 => (8, 1 << 32),
        _ => return None,
    };
    let (head, rest) = rest.split_at_checked(bytes)?;
    let number = head.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    (number >= least).then_some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::is_deterministic;

    #[test]
    fn one_value_has_one_encoding() {
        let good: [&[u8]; 8] = [
            &[0],
            &[0x18, 24],
            &[0x20],
            &[0x40],
            &[0x61, b'a'],
            &[0x82, 1, 0xf6],
            &[0x80],
            &[0x1b, 0, 0, 0, 1, 0, 0, 0, 0],
        ];
        assert!(good.iter().all(|bytes| is_deterministic(bytes)));
        let bad: [&[u8]; 10] = [
            &[],
            &[0, 0],
            &[0x18, 23],
            &[0x19, 0, 255],
            &[0x9f, 0xff],
            &[0x41],
            &[0x61, 0xff],
            &[0xa0],
            &[0xf9, 0, 0],
            &[0x9b, 255, 255, 255, 255, 255, 255, 255, 255],
        ];
        assert!(bad.iter().all(|bytes| !is_deterministic(bytes)));
        assert!(!is_deterministic(&[0x81; 100]), "depth is bounded");
    }
}
