//! Login with mutual authentication in one round trip, and the voucher it can yield.

use minicbor::{Decode, Encode};
use waybill_crypto::commitment::{Commitment, Opening};
use waybill_crypto::keys::{Digest, HpkePublicKey};
use waybill_crypto::pseudonym::Pseudonym;
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;

use super::{Chain, Disclosure, Item, KeyChange, Preview, check_mailbox, check_suite};
use crate::ids::{HospitalId, MessageId, Nonce, ProofId, Timestamp};
use crate::rejection::Code;
use crate::signed::{Message, SignedBytes};
use crate::wire::DecodeError;

/// What a login is for.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum Purpose {
    /// Ask for a voucher for this delegation key.
    #[n(0)]
    Voucher {
        /// Thumbprint of the fresh delegation key.
        #[n(0)]
        delegation_key: Digest,
        /// Commitment to the pseudonym at this hospital.
        #[n(1)]
        com_source: Commitment,
        /// Opens it: the hospital vouches only for a commitment to the pseudonym that asks.
        #[n(2)]
        opening: Opening,
    },
    /// Ask what the hospital holds, and what a scope and hides would make of it.
    #[n(1)]
    Preview {
        /// Which part would travel.
        #[n(0)]
        scope: Scope,
        /// But for these items.
        #[n(1)]
        hides: Hides,
    },
    /// Ask how a case stands.
    #[n(2)]
    Watch {
        /// The case.
        #[n(0)]
        proof: ProofId,
    },
    /// Ask for the items of one type, in order of their ids.
    #[n(3)]
    Items {
        /// FHIR resource type.
        #[n(0)]
        resource_type: String,
        /// The last id of the page before.
        #[n(1)]
        after: Option<String>,
    },
    /// Ask who looked at the record.
    #[n(4)]
    Disclosures {
        /// The last number of the page before; 0 for the first page.
        #[n(0)]
        after: u64,
    },
}

waybill_crypto::opaque_debug!(Purpose);

/// Patient -> hospital, signed by the pairwise consent key, sealed to the hospital's pinned key.
///
/// Security: the answer is bound to the hash of this whole request and sealed to a key that lives for one exchange.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct LoginRequest {
    /// Suite.
    #[n(0)]
    pub suite: u8,
    /// The hospital meant.
    #[n(1)]
    pub hospital: HospitalId,
    /// Who asks.
    #[n(2)]
    pub pid: Pseudonym,
    /// Freshness; the hospital keeps the nonces of its time window.
    #[n(3)]
    pub nonce: Nonce,
    /// When.
    #[n(4)]
    pub time: Timestamp,
    /// Fresh random key the answer is sealed to.
    #[n(5)]
    pub reply_key: HpkePublicKey,
    /// The mailbox the answer is posted to.
    #[n(6)]
    pub reply_to: String,
    /// What for.
    #[n(7)]
    pub purpose: Purpose,
}

impl Message for LoginRequest {
    const TYP: &'static str = "waybill-login";
    /// A preview names what would be hidden, as a consent does.
    const MAX_BYTES: usize = 2 * 1024 * 1024;
    fn check(&self) -> Result<(), DecodeError> {
        check_suite(self.suite, Self::TYP)?;
        check_mailbox(&self.reply_to, Self::TYP)
    }
}

/// A login's plaintext inside its seal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct LoginBody {
    /// The signed request.
    #[n(0)]
    pub request: SignedBytes<LoginRequest>,
}

/// Hospital -> patient, signed by the hospital, sealed to the request's reply key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct LoginAnswer {
    /// The request answered: its message id, which covers every byte of it.
    #[n(0)]
    pub request: MessageId,
    /// Who answers.
    #[n(1)]
    pub hospital: HospitalId,
    /// When.
    #[n(2)]
    pub time: Timestamp,
    /// What was asked.
    #[n(3)]
    pub outcome: LoginOutcome,
    /// Where the hospital has new keys: its statement of them, signed by the very key that signs this answer.
    #[n(4)]
    pub key_change: Option<SignedBytes<KeyChange>>,
}

impl Message for LoginAnswer {
    const TYP: &'static str = "waybill-login-answer";
    const MAX_BYTES: usize = 512 * 1024;
}

/// What a login gave.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum LoginOutcome {
    /// A voucher.
    #[n(0)]
    Voucher {
        /// The voucher and the chain of the key that signed it.
        #[n(0)]
        grant: VoucherGrant,
    },
    /// What is held, and what would travel.
    #[n(1)]
    Preview {
        /// The preview.
        #[n(0)]
        preview: Preview,
    },
    /// How the case stands here.
    #[n(2)]
    Watch {
        /// The state's name.
        #[n(0)]
        state: String,
        /// Where a code says more.
        #[n(1)]
        code: Option<Code>,
    },
    /// Refused.
    #[n(3)]
    Refused {
        /// Why.
        #[n(0)]
        code: Code,
    },
    /// A page of items of one type.
    #[n(4)]
    Items {
        /// In ascending order of their ids.
        #[n(0)]
        items: Vec<Item>,
        /// Whether there are more.
        #[n(1)]
        more: bool,
    },
    /// A page of the list of who looked.
    #[n(5)]
    Disclosures {
        /// In the order they happened.
        #[n(0)]
        entries: Vec<Disclosure>,
        /// Whether there are more.
        #[n(1)]
        more: bool,
    },
}

/// A voucher with its signer's chain.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct VoucherGrant {
    /// The signed voucher.
    #[n(0)]
    pub voucher: SignedBytes<Voucher>,
    /// The hospital's signing certificate and issuing certificate.
    #[n(1)]
    pub chain: Chain,
}

/// Source -> patient: "a patient registered here holds this delegation key". Signed by the source.
///
/// Security: names no patient. The authority can refuse strangers, yet sees a new key every time.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Voucher {
    /// Suite.
    #[n(0)]
    pub suite: u8,
    /// The hospital that vouches.
    #[n(1)]
    pub source: HospitalId,
    /// **Thumbprint of the delegation key, as named in the signed login request.**
    #[n(2)]
    pub delegation_key: Digest,
    /// Commitment to the patient's pseudonym at the source.
    #[n(3)]
    pub com_source: Commitment,
    /// Last second of validity.
    #[n(4)]
    pub not_after: Timestamp,
}

impl Message for Voucher {
    const TYP: &'static str = "waybill-voucher";
    fn check(&self) -> Result<(), DecodeError> {
        check_suite(self.suite, Self::TYP)
    }
}
