//! Parties whose keys the attacker holds: each speaks the protocol by hand over real mailboxes, so that any field can be another.
//!
//! Unaltered, they are honest, and the real processes at the other end take them for what they claim to be: that is the twin of
//! every attack made with them.

pub mod authority;
pub mod destination;
pub mod patient;
pub mod source;

pub use authority::Authority;
pub use destination::{Ask, Destination, Heard, Listed, Session};
pub use patient::{Case, Patient};
pub use source::{Shipment, Source};

use waybill_crypto::backend::Backend as _;
use waybill_crypto::commitment::Opening;
use waybill_crypto::native::Native;
use waybill_protocol::registrar::HospitalIdentity;
use waybill_server::files;

use super::scene::{OrFail as _, Scene, id};
use crate::demo::network::{HOSPITAL_A, HOSPITAL_B};
use crate::failure::Failure;

/// Random bytes that open a commitment.
#[must_use]
pub fn opening() -> Opening {
    let mut bytes = [0; 32];
    Native.random(&mut bytes);
    Opening(bytes)
}

/// The keys in a hospital's folder.
///
/// # Errors
/// [`Failure`].
pub fn identity(scene: &Scene, hospital: &str) -> Result<HospitalIdentity, Failure> {
    let keys = scene.folder(hospital).join("keys");
    Ok(HospitalIdentity {
        id: id(if hospital == "hospital-a" { HOSPITAL_A } else { HOSPITAL_B }),
        signing: files::read_signing_key(&keys.join("signing.key")).or_fail("a signing key cannot be read")?,
        hpke: files::read_hpke_key(&keys.join("consent.key")).or_fail("a consent key cannot be read")?,
        chain: scene.chain(hospital)?,
        change: None,
    })
}
