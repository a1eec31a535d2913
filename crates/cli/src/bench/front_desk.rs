//! Whether the check of a patient's signature takes the same time for an unknown patient and for a known one, in this process: no
//! network, no store, tens of thousands of checks, so that a fraction of one verification would be seen.

use std::time::Instant;

use serde::Serialize;
use waybill_crypto::backend::Backend as _;
use waybill_crypto::keys::SigningKey;
use waybill_crypto::native::Native;
use waybill_crypto::pseudonym::RootSecret;
use waybill_protocol::ids::{HospitalId, Nonce, Timestamp};
use waybill_protocol::messages::{Limits, LoginRequest, Purpose, Relation, SUITE};
use waybill_protocol::registrar::{ConsentKey, LocalPatient, Registered};
use waybill_protocol::signed::{Signed, Unverified};
use waybill_protocol::trust::Ctx;

use super::order;
use super::welch::{BOUND, Comparison, compare};

/// A difference below this part of one verification is no decoy's absence.
const NEGLIGIBLE: f64 = 0.05;
/// Messages of each kind: how long a verification takes hangs on the message a little.
const MESSAGES: usize = 64;
/// Length of a signature, at the end of a signed message. Units: bytes.
const SIGNATURE: usize = 64;
const NOW: Timestamp = Timestamp(1_800_000_000);

/// What was measured. Units of times: microseconds.
#[derive(Debug, Serialize)]
pub struct Checks {
    checks: u32,
    /// An unknown patient (the decoy's verification) against a known one with a bad signature.
    unknown_and_known: Comparison,
    /// The control: an unknown patient without the decoy, against the same.
    without_decoy_and_known: Comparison,
    /// The first two lie closer together than a twentieth of a verification, or |t| is below the bound.
    pub alike: bool,
    /// The control was told apart: a missing verification would have been seen.
    pub control_told_apart: bool,
}

impl Checks {
    /// Two lines for a person.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |what: &str, c: &Comparison, said: &str| format!("{what}: {}: {said}", c.sentence());
        let alike = if self.alike { "not told apart" } else { "TOLD APART" };
        let control =
            if self.control_told_apart { "told apart, as it must be" } else { "NOT SEEN: this run shows nothing" };
        vec![
            line("the check alone, unknown against bad signature", &self.unknown_and_known, alike),
            line("the same without the decoy, for control       ", &self.without_decoy_and_known, control),
        ]
    }
}

/// Measures.
#[must_use]
pub fn measure(checks: u32) -> Checks {
    let key = Native.generate_signing_key();
    let registered = Registered {
        local: LocalPatient("p".into()),
        keys: vec![ConsentKey {
            key: key.public().clone(),
            relation: Relation::OneSelf,
            expires: NOW,
            limits: Limits::none(),
            attestation: None,
        }],
    };
    let messages: Vec<_> = (0..MESSAGES).map(|_| badly_signed(&key)).collect();
    let ctx = Ctx { now: NOW, backend: &Native };
    let mut times: [Vec<f64>; 3] = Default::default();
    for round in 0..checks as usize {
        // In turns, in a random order, over the same messages: whatever drifts, drifts for all.
        for which in order() {
            let message = messages[round % MESSAGES].clone();
            let begun = Instant::now();
            let refused = match which {
                0 => Registered::verify(None, &ctx, message).is_err(),
                1 => Registered::verify(Some(&registered), &ctx, message).is_err(),
                _ => std::hint::black_box(message).kid() == key.public().kid(),
            };
            times[which].push(begun.elapsed().as_secs_f64() * 1e6);
            assert!(refused, "each of these is refused");
        }
    }
    let [unknown, known, without] = times;
    let (first, control) = (compare(&unknown, &known), compare(&without, &known));
    Checks {
        checks,
        alike: alike(&first),
        control_told_apart: !alike(&control),
        unknown_and_known: first,
        without_decoy_and_known: control,
    }
}

fn alike(one: &Comparison) -> bool {
    one.t.abs() < BOUND || one.mean_difference_us.abs() < NEGLIGIBLE * one.second_median_us
}

/// A login under the key's name, with the signature of another one.
fn badly_signed(key: &SigningKey) -> Unverified<LoginRequest> {
    let [mut bytes, other] = [(); 2].map(|()| Signed::sign(&Native, key, login()).bytes().to_vec());
    let at = bytes.len() - SIGNATURE;
    bytes[at..].copy_from_slice(&other[other.len() - SIGNATURE..]);
    Unverified::parse(&bytes).expect("a signature of the right form")
}

fn login() -> LoginRequest {
    let (mut root, hospital) = ([0; 32], "hospital.example");
    Native.random(&mut root);
    LoginRequest {
        suite: SUITE,
        hospital: HospitalId::parse(hospital).expect("a name"),
        pid: RootSecret::from_bytes(root).pid(hospital, 0),
        nonce: Nonce::random(&Native),
        time: NOW,
        reply_key: *Native.generate_hpke_key().public(),
        reply_to: "https://relay.example/mailbox/r".into(),
        purpose: Purpose::Disclosures { after: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_verification_is_no_negligible_difference() {
        let compared = |mean_difference_us: f64, t: f64| Comparison {
            first_median_us: 100.0 + mean_difference_us,
            second_median_us: 100.0,
            mean_difference_us,
            half_width_us: 0.1,
            t,
        };
        assert!(alike(&compared(1.0, 20.0)), "seen, and next to nothing");
        assert!(alike(&compared(30.0, 1.0)), "not seen");
        assert!(!alike(&compared(-95.0, -2000.0)));
        let login = badly_signed(&Native.generate_signing_key());
        assert!(login.verify(&Native, Native.generate_signing_key().public()).is_err());
    }
}
