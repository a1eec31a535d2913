//! Project Wycheproof's known attacks against the primitives in use, on both back ends.
#![cfg(feature = "native")]
#![allow(clippy::unwrap_used, reason = "tests")]

use waybill_crypto::{
    backend::Backend,
    hkdf,
    keys::{Ed25519PublicKey, Signature, VerifyingKey},
    native::Native,
    portable::Portable,
};
use wycheproof::TestResult;

fn backends() -> [(&'static str, Box<dyn Backend>); 2] {
    [("native", Box::new(Native)), ("portable", Box::new(Portable::from_seed([0; 32])))]
}

/// ECDSA P-256 with SHA-256, signatures as r || s.
///
/// Our policy is stricter than the standard's: a valid signature with high s is refused, and accepted once its s is brought low.
#[test]
fn ecdsa_p256_sha256() {
    let set = wycheproof::ecdsa::TestSet::load(wycheproof::ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let (mut low, mut high, mut refused) = (0, 0, 0);
    for group in set.test_groups {
        let key = VerifyingKey::from_sec1(&group.key.key).unwrap();
        for test in group.tests {
            for (name, backend) in backends() {
                let verify = |signature: &Signature| backend.verify(&key, &test.msg, signature).is_ok();
                let Ok(signature) = Signature::try_from(&test.sig[..]) else {
                    assert!(test.result.must_fail(), "{name}, test {}: length", test.tc_id);
                    continue;
                };
                if test.result.must_fail() {
                    assert!(!verify(&signature), "{name}, test {}", test.tc_id);
                    refused += 1;
                } else if signature.is_low_s() {
                    assert!(verify(&signature), "{name}, test {}", test.tc_id);
                    low += 1;
                } else {
                    assert!(!verify(&signature), "{name}, test {}: high s", test.tc_id);
                    assert!(verify(&signature.normalised()), "{name}, test {}: lowered", test.tc_id);
                    high += 1;
                }
            }
        }
    }
    assert!(low > 50 && high > 50 && refused > 50, "{low} {high} {refused}");
}

/// AES-256-GCM with 96-bit nonces and 128-bit tags.
#[test]
fn aes_256_gcm() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
    let groups = set.test_groups.into_iter().filter(|g| (g.key_size, g.nonce_size, g.tag_size) == (256, 96, 128));
    let mut count = 0;
    for test in groups.flat_map(|group| group.tests) {
        let (key, nonce) = (test.key[..].try_into().unwrap(), test.nonce[..].try_into().unwrap());
        let tag = test.tag[..].try_into().unwrap();
        for (name, backend) in backends() {
            let mut buffer = test.ct.to_vec();
            let opened = backend.aead_open(key, nonce, &test.aad, &mut buffer, tag).is_ok();
            assert_eq!(opened, test.result == TestResult::Valid, "{name}, test {}", test.tc_id);
            if opened {
                assert_eq!(buffer, *test.pt);
                assert_eq!(backend.aead_seal(key, nonce, &test.aad, &mut buffer), *tag);
                assert_eq!(buffer, *test.ct);
            }
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}

#[test]
fn ed25519() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    let mut count = 0;
    for group in set.test_groups {
        let key = Ed25519PublicKey::try_from(&group.key.pk[..]).unwrap();
        for test in group.tests {
            for (name, backend) in backends() {
                let verified = test.sig[..]
                    .try_into()
                    .is_ok_and(|signature| backend.ed25519_verify(&key, &test.msg, signature).is_ok());
                assert_eq!(verified, test.result == TestResult::Valid, "{name}, test {}", test.tc_id);
                count += 1;
            }
        }
    }
    assert!(count > 100, "{count}");
}

/// HKDF-SHA256. Outputs of one derivation are prefixes of each other, so the longest covers every size.
#[test]
fn hkdf_sha256() {
    let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
    let mut count = 0;
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        if test.result.must_fail() {
            // Only sizes above 255 * 32, which do not compile here.
            assert!(test.size > 255 * 32, "test {}", test.tc_id);
            continue;
        }
        let prk = hkdf::extract(&test.salt, &test.ikm);
        let okm = hkdf::expand::<{ 255 * 32 }>(&prk, &test.info);
        assert_eq!(okm[..test.size], test.okm[..], "test {}", test.tc_id);
        count += 1;
    }
    assert!(count > 50, "{count}");
}
