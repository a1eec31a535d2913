//! Commitments: hiding a value until its opening is shown, and holding its author to it.

use thiserror::Error;

use crate::{
    digest::{Digest, sha256},
    encoding::{Tuple, secret_newtype},
};

secret_newtype! {
    /// The 32 random bytes that hide a committed value.
    ///
    /// Security: fresh for every commitment; whoever has it can test guesses of the value.
    Opening
}

/// SHA-256 over CBOR["waybill/1 com", kind, opening, value].
///
/// Security: hiding because the opening is random, binding because SHA-256 resists collisions and CBOR parses one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct Commitment(#[n(0)] pub Digest);

/// The opening and value shown are not what was committed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the value is not the one that was committed to")]
pub struct CommitmentMismatch;

impl Commitment {
    /// Commits to a value, given as its deterministic CBOR, in the role that `kind` names.
    #[must_use]
    pub fn commit(kind: &str, opening: &Opening, value_cbor: &[u8]) -> Self {
        let cbor = zeroize::Zeroizing::new(
            Tuple::new(4, "waybill/1 com").text(kind).bytes(opening.expose()).bytes(value_cbor).finish(),
        );
        Self(sha256(&[&cbor]))
    }

    /// Checks that kind, opening and value are those committed to.
    ///
    /// Errors: [`CommitmentMismatch`], which does not say what differs.
    pub fn verify(&self, kind: &str, opening: &Opening, value_cbor: &[u8]) -> Result<(), CommitmentMismatch> {
        if Self::commit(kind, opening, value_cbor) == *self { Ok(()) } else { Err(CommitmentMismatch) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_to_what_was_committed_and_to_nothing_else() {
        let opening = Opening([1; 32]);
        let commitment = Commitment::commit("scope", &opening, b"value");
        assert_eq!(commitment.verify("scope", &opening, b"value"), Ok(()));
        assert_eq!(commitment.verify("hides", &opening, b"value"), Err(CommitmentMismatch));
        assert_eq!(commitment.verify("scope", &Opening([2; 32]), b"value"), Err(CommitmentMismatch));
        assert_eq!(commitment.verify("scope", &opening, b"other"), Err(CommitmentMismatch));
        assert_eq!(commitment.verify("scope", &opening, b""), Err(CommitmentMismatch));
    }

    #[test]
    fn on_the_wire_a_commitment_is_a_byte_string() {
        let commitment = Commitment::commit("scope", &Opening([1; 32]), b"value");
        let cbor = minicbor::to_vec(commitment).unwrap();
        assert_eq!(cbor[..2], [0x58, 32]);
        assert_eq!(minicbor::decode::<Commitment>(&cbor).unwrap(), commitment);
    }
}
