//! The two back ends are equal on every operation, and each opens and verifies what the other made.
#![cfg(feature = "native")]
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use waybill_crypto::{
    backend::{Backend, PrimitiveError, Sealed},
    keys::{Ed25519PublicKey, Ed25519SecretKey, HpkePublicKey, HpkeSecretKey, Signature, SigningKey},
    native::Native,
    portable::Portable,
};

fn backends() -> [Box<dyn Backend>; 2] {
    [Box::new(Native), Box::new(Portable::from_seed([42; 32]))]
}

/// Runs `check` with each back end as maker and each as reader.
fn crossed(check: impl Fn(&dyn Backend, &dyn Backend)) {
    for maker in &backends() {
        for reader in &backends() {
            check(maker.as_ref(), reader.as_ref());
        }
    }
}

/// What every back end answers, which must be one answer.
fn agreed<T: PartialEq + std::fmt::Debug>(ask: impl Fn(&dyn Backend) -> T) -> T {
    let [native, portable] = backends().map(|backend| ask(backend.as_ref()));
    assert_eq!(native, portable);
    native
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn signatures_cross(seed: [u8; 32], message: Vec<u8>, flip in 0..512_usize) {
        let key = SigningKey::derive(&seed);
        crossed(|signer, verifier| {
            let signature = signer.sign(&key, &message);
            assert!(signature.is_low_s());
            assert_eq!(verifier.verify(key.public(), &message, &signature), Ok(()));
            let mut bad = signature;
            bad.0[flip / 8] ^= 1 << (flip % 8);
            assert_eq!(verifier.verify(key.public(), &message, &bad), Err(PrimitiveError::Signature));
            let mut longer = message.clone();
            longer.push(0);
            assert_eq!(verifier.verify(key.public(), &longer, &signature), Err(PrimitiveError::Signature));
        });
    }

    #[test]
    fn arbitrary_signatures_are_refused_alike(seed: [u8; 32], half: [u8; 32], other: [u8; 32]) {
        let key = SigningKey::derive(&seed);
        let signature = Signature::try_from([half, other].concat().as_slice()).unwrap();
        prop_assert_eq!(agreed(|backend| backend.verify(key.public(), b"m", &signature)), Err(PrimitiveError::Signature));
    }

    #[test]
    fn sealed_messages_cross(secret: [u8; 32], other: [u8; 32], info: Vec<u8>, plaintext: Vec<u8>, flip: prop::sample::Index) {
        prop_assume!(secret != other);
        let (key, other) = (HpkeSecretKey::from_bytes(&secret), HpkeSecretKey::from_bytes(&other));
        crossed(|sealer, opener| {
            let sealed = sealer.seal(key.public(), &info, &plaintext).unwrap();
            assert_eq!(sealed.ciphertext.len(), plaintext.len() + 16);
            assert_eq!(opener.open(&key, &info, &sealed).unwrap(), plaintext);
            assert_eq!(opener.open(&other, &info, &sealed), Err(PrimitiveError::Seal));
            let longer = [info.as_slice(), &[0]].concat();
            assert_eq!(opener.open(&key, &longer, &sealed), Err(PrimitiveError::Seal));
            let mut bad = sealed.clone();
            let position = flip.index(bad.ciphertext.len());
            bad.ciphertext[position] ^= 1;
            assert_eq!(opener.open(&key, &info, &bad), Err(PrimitiveError::Seal));
            let mut bad = sealed;
            bad.enc[flip.index(31)] ^= 1;
            assert_eq!(opener.open(&key, &info, &bad), Err(PrimitiveError::Seal));
        });
    }

    #[test]
    fn arbitrary_sealed_messages_are_refused_alike(secret: [u8; 32], enc: [u8; 32], ciphertext: Vec<u8>) {
        let (key, sealed) = (HpkeSecretKey::from_bytes(&secret), Sealed { enc, ciphertext });
        prop_assert_eq!(agreed(|backend| backend.open(&key, b"", &sealed)), Err(PrimitiveError::Seal));
    }

    #[test]
    fn aead_is_equal(key: [u8; 32], nonce: [u8; 12], aad: Vec<u8>, plaintext: Vec<u8>, flip in 0..128_usize) {
        let (ciphertext, tag) = agreed(|backend| {
            let mut buffer = plaintext.clone();
            let tag = backend.aead_seal(&key, &nonce, &aad, &mut buffer);
            (buffer, tag)
        });
        agreed(|backend| {
            let mut buffer = ciphertext.clone();
            assert_eq!(backend.aead_open(&key, &nonce, &aad, &mut buffer, &tag), Ok(()));
            assert_eq!(buffer, plaintext);
            let mut bad = tag;
            bad[flip / 8] ^= 1 << (flip % 8);
            let mut buffer = ciphertext.clone();
            assert_eq!(backend.aead_open(&key, &nonce, &aad, &mut buffer, &bad), Err(PrimitiveError::Aead));
            assert!(buffer.iter().all(|byte| *byte == 0));
        });
    }

    #[test]
    fn ed25519_is_equal(seed: [u8; 32], message: Vec<u8>, flip in 0..512_usize) {
        let key = Ed25519SecretKey::from_bytes(&seed);
        let signature = agreed(|backend| backend.ed25519_sign(&key, &message));
        prop_assert_eq!(agreed(|backend| backend.ed25519_verify(key.public(), &message, &signature)), Ok(()));
        let mut bad = signature;
        bad[flip / 8] ^= 1 << (flip % 8);
        let verdict = agreed(|backend| backend.ed25519_verify(key.public(), &message, &bad));
        prop_assert_eq!(verdict, Err(PrimitiveError::Signature));
    }
}

#[test]
fn high_s_is_refused_by_both_though_it_satisfies_the_equation() {
    // (r, n - s) of a valid signature, made by negating s modulo the group order.
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
        0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let key = SigningKey::derive(&[1; 32]);
    crossed(|signer, verifier| {
        let signature = signer.sign(&key, b"m");
        let mut high = signature;
        let mut borrow = 0_i32;
        for (s, n) in high.0[32..].iter_mut().zip(ORDER).rev() {
            let difference = i32::from(n) - i32::from(*s) - borrow;
            borrow = i32::from(difference < 0);
            *s = u8::try_from(difference.rem_euclid(256)).unwrap();
        }
        assert!(!high.is_low_s());
        assert_eq!(verifier.verify(key.public(), b"m", &high), Err(PrimitiveError::Signature));
        assert_eq!(high.normalised(), signature);
    });
}

#[test]
fn generated_keys_work_in_the_other_back_end() {
    crossed(|maker, user| {
        let signing = maker.generate_signing_key();
        let read_back = SigningKey::from_scalar_bytes(&signing.to_scalar_bytes()).unwrap();
        assert_eq!(read_back.public(), signing.public());
        assert_eq!(user.verify(signing.public(), b"m", &user.sign(&read_back, b"m")), Ok(()));
        let hpke = maker.generate_hpke_key();
        let sealed = user.seal(hpke.public(), b"i", b"p").unwrap();
        assert_eq!(user.open(&HpkeSecretKey::from_bytes(&hpke.to_bytes()), b"i", &sealed).unwrap(), b"p");
    });
}

#[test]
fn x25519_keys_of_small_order_are_refused_alike() {
    // RFC 9180 section 7.1.4: an all-zero shared secret MUST abort.
    let mut one = [0; 32];
    one[0] = 1;
    let secret = HpkeSecretKey::from_bytes(&[9; 32]);
    for small in [[0; 32], one] {
        let sealed = agreed(|backend| backend.seal(&HpkePublicKey(small), b"", b"p"));
        assert_eq!(sealed, Err(PrimitiveError::Key));
        let message = Sealed { enc: small, ciphertext: vec![0; 32] };
        assert_eq!(agreed(|backend| backend.open(&secret, b"", &message)), Err(PrimitiveError::Seal));
    }
}

#[test]
fn ed25519_keys_that_are_no_points_are_refused_alike() {
    let mut bytes = [0; 32];
    for first in 0..=255 {
        bytes[0] = first;
        let key = Ed25519PublicKey(bytes);
        let verdict = agreed(|backend| backend.ed25519_verify(&key, b"m", &[1; 64]));
        assert_eq!(verdict, Err(PrimitiveError::Signature));
    }
}

#[test]
fn random_differs_between_calls() {
    for backend in backends() {
        let (mut one, mut two) = ([0; 32], [0; 32]);
        backend.random(&mut one);
        backend.random(&mut two);
        assert_ne!(one, two);
    }
}

#[test]
fn portable_repeats_from_its_seed_and_native_does_not() {
    let draw = |backend: &dyn Backend| {
        let key = backend.generate_signing_key();
        let hpke = backend.generate_hpke_key();
        let sealed = backend.seal(hpke.public(), b"", b"p").unwrap();
        (key.public().clone(), *hpke.public(), sealed, backend.sign(&key, b"m"))
    };
    assert_eq!(draw(&Portable::from_seed([3; 32])), draw(&Portable::from_seed([3; 32])));
    assert_ne!(draw(&Portable::from_seed([3; 32])), draw(&Portable::from_seed([4; 32])));
    assert_ne!(draw(&Native), draw(&Native));
}

#[test]
fn debug_of_the_seeded_back_end_shows_no_state() {
    assert_eq!(format!("{:?}", Portable::from_seed([3; 32])), "Portable(redacted)");
}

/// RFC 6979 appendix A.2.5 (P-256, SHA-256), with s brought low where the RFC's is high.
#[test]
fn rfc_6979_signatures() {
    let scalar = hex::decode("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721").unwrap();
    let key = SigningKey::from_scalar_bytes(scalar.as_slice().try_into().unwrap()).unwrap();
    let vectors = [
        (
            "sample",
            "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
            "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
        ),
        (
            "test",
            "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367",
            "019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083",
        ),
    ];
    for (message, r, s) in vectors {
        let published: Signature = format!("{r}{s}").parse().unwrap();
        let ours = Portable::from_seed([0; 32]).sign(&key, message.as_bytes());
        assert_eq!(ours, published.normalised(), "{message}");
        assert_eq!(Native.verify(key.public(), message.as_bytes(), &ours), Ok(()));
    }
}
