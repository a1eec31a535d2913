//! Bytes that are almost what they should be.

/// The order n of the P-256 group, big-endian.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The same signed message with (r, n - s): as valid as the original for whoever does not demand the lower half.
#[must_use]
pub fn mirrored(signed: &[u8]) -> Vec<u8> {
    let mut bytes = signed.to_vec();
    // A COSE_Sign1 ends with its signature.
    let at = bytes.len() - 32;
    let mut borrow = 0;
    for (s, n) in bytes[at..].iter_mut().zip(ORDER).rev() {
        let difference = i16::from(n) - i16::from(*s) - borrow;
        borrow = i16::from(difference < 0);
        *s = u8::try_from(difference.rem_euclid(256)).expect("a remainder of 256 is a byte");
    }
    bytes
}

/// The same signed message whose header names another algorithm than ES256.
#[must_use]
pub fn flipped_algorithm(signed: &[u8]) -> Vec<u8> {
    let mut bytes = signed.to_vec();
    // The protected header begins {1: -7, ...}: A3 01 26.
    if let Some(at) = bytes.windows(3).position(|window| window == [0xa3, 0x01, 0x26]) {
        bytes[at + 2] = 0x27;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_crypto::keys::Signature;

    #[test]
    fn a_mirrored_signature_is_the_other_one_of_the_two() {
        let mut signed = vec![9; 70];
        signed[69] = 1;
        let twice = mirrored(&mirrored(&signed));
        assert_eq!(twice, signed);
        let signature: [u8; 64] = mirrored(&signed)[6..].try_into().unwrap();
        assert!(!Signature(signature).is_low_s());
        assert_eq!(Signature(signature).normalised().0[32..], signed[38..]);
    }
}
