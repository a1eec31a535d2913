//! A hospital's side of registration and login: who the patients are, and which keys speak for them.

use std::fmt;
use std::sync::OnceLock;

use minicbor::{Decode, Encode};
use waybill_crypto::keys::{Digest, HospitalKeys, HpkePublicKey, HpkeSecretKey, KeyId, SigningKey, VerifyingKey};
use waybill_crypto::pseudonym::Pseudonym;

use crate::ids::{HospitalId, MessageId, Nonce, Timestamp};
use crate::messages::{
    Chain, KeyChange, Limits, LoginAnswer, LoginBody, LoginOutcome, LoginRequest, Purpose, Registration,
    RegistrationAnswer, RegistrationBody, Relation, SUITE, Voucher, VoucherGrant,
};
use crate::migration::{Effect, Recipient, tell};
use crate::rejection::{Code, Rejection};
use crate::sealed::{SealPurpose, SealedBytes};
use crate::signed::{Signed, SignedBytes, Unverified};
use crate::source::commitment_kind;
use crate::trust::Ctx;
use crate::wire::{Kind, Parcel, from_cbor, to_cbor};

/// How far a login's time may lie from the hospital's clock. Units: seconds. The hospital keeps nonces for this long.
pub const LOGIN_WINDOW_SECONDS: u64 = 300;
/// How long a voucher holds. Units: seconds.
pub const VOUCHER_LIFETIME_SECONDS: u64 = 3_600;
/// How long a registration holds. Units: seconds.
pub const REGISTRATION_LIFETIME_SECONDS: u64 = 5 * 365 * 86_400;

/// Who a hospital is: its name and the two keys that patients pin.
pub struct HospitalIdentity {
    /// Its registered name.
    pub id: HospitalId,
    /// Its signing key.
    pub signing: SigningKey,
    /// Its consent HPKE key.
    pub hpke: HpkeSecretKey,
    /// Signing certificate and issuing certificate.
    pub chain: Chain,
    /// Set on keys that were replaced: the statement, signed by these, that names their successors. Patients who still pin these
    /// are answered under these, and told.
    pub change: Option<SignedBytes<KeyChange>>,
}

impl HospitalIdentity {
    /// The public halves.
    #[must_use]
    pub fn keys(&self) -> HospitalKeys {
        HospitalKeys { signing: self.signing.public().clone(), hpke: *self.hpke.public() }
    }

    /// Signs the statement that replaces these keys.
    #[must_use]
    pub fn sign_change(&self, ctx: &Ctx<'_>, to: HospitalKeys) -> SignedBytes<KeyChange> {
        let from = self.keys().thumb();
        let change = KeyChange { suite: SUITE, hospital: self.id.clone(), from, to, time: ctx.now };
        SignedBytes::from(&Signed::sign(ctx.backend, &self.signing, change))
    }
}

/// What an enrolment code stands for, as stored by the hospital under the code's hash.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct EnrolmentCode {
    /// The local patient it was made for.
    #[n(0)]
    pub local: LocalPatient,
    /// In what capacity the key will speak.
    #[n(1)]
    pub relation: Relation,
    /// Last second of validity of the code.
    #[n(2)]
    pub expires: Timestamp,
    /// What the key may decide.
    #[n(3)]
    pub limits: Limits,
    /// Until when the key may speak; at most [`REGISTRATION_LIFETIME_SECONDS`] from its registration.
    #[n(4)]
    pub key_expires: Timestamp,
    /// Who saw the signed form, for a key that is registered on one.
    #[n(5)]
    pub attestation: Option<Attestation>,
}

impl EnrolmentCode {
    /// The patient in person, without limits.
    #[must_use]
    pub fn for_oneself(local: LocalPatient, expires: Timestamp) -> Self {
        let (relation, limits) = (Relation::OneSelf, Limits::none());
        Self { local, relation, expires, limits, key_expires: Timestamp(u64::MAX), attestation: None }
    }
}

/// Two members of staff saw the patient sign a form, on whose strength a key speaks for them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Attestation {
    /// SHA-256 of the scanned form.
    #[n(0)]
    pub form: Digest,
    /// Who attests: two different members of staff, by the names the hospital knows them by.
    #[n(1)]
    pub staff: Vec<String>,
}

impl Attestation {
    /// Four eyes.
    ///
    /// # Errors
    /// `enrolment-code-invalid` unless two different people attest.
    pub fn verify(&self) -> Result<(), Rejection> {
        match self.staff.as_slice() {
            [one, other] if one != other && !one.is_empty() && !other.is_empty() => Ok(()),
            _ => Err(Code::CodeInvalid.into()),
        }
    }
}

/// The hospital's own name for a patient (a FHIR Patient id). Never leaves the hospital.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct LocalPatient(#[n(0)] pub String);

impl fmt::Debug for LocalPatient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalPatient(..)")
    }
}

/// A key that may consent for a patient.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ConsentKey {
    /// The key.
    #[n(0)]
    pub key: VerifyingKey,
    /// In what capacity.
    #[n(1)]
    pub relation: Relation,
    /// Until when.
    #[n(2)]
    pub expires: Timestamp,
    /// What it may decide.
    #[n(3)]
    pub limits: Limits,
    /// Who saw the signed form, where it is registered on one.
    #[n(4)]
    pub attestation: Option<Attestation>,
}

/// A patient registered here, stored under the pseudonym.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Registered {
    /// The local patient.
    #[n(0)]
    pub local: LocalPatient,
    /// The keys that speak for them.
    #[n(1)]
    pub keys: Vec<ConsentKey>,
}

/// What a registered key signed, and what that key may decide.
#[derive(Debug)]
pub struct SignedByRegistered<M: crate::signed::Message> {
    /// The message.
    pub signed: Signed<M>,
    /// The limits of the key.
    pub limits: Limits,
}

impl Registered {
    /// Whether a key is among those that speak for the patient.
    #[must_use]
    pub fn holds(&self, key: KeyId) -> bool {
        self.keys.iter().any(|known| known.key.kid() == key)
    }

    /// Verifies a signed message under one of the registered keys that is still valid.
    ///
    /// Security: always costs one verification when there is a key with the message's id and one otherwise, so that an unknown
    /// key is not told apart from a bad signature.
    ///
    /// # Errors
    /// `consent-signature-invalid`, `consent-key-expired`.
    pub fn verify<M: crate::signed::Message>(
        registered: Option<&Self>,
        ctx: &Ctx<'_>,
        message: Unverified<M>,
    ) -> Result<SignedByRegistered<M>, Rejection> {
        let found = registered.and_then(|r| r.keys.iter().find(|k| k.key.kid() == message.kid()));
        let Some(found) = found else {
            // The same work as for a known key: a probe must not tell the two apart by time.
            let signature_failed = message.verify_as_decoy(ctx.backend, decoy());
            debug_assert!(signature_failed, "nobody signs with the decoy's key");
            let code = if registered.is_some() { Code::ConsentSignatureInvalid } else { Code::PatientUnknown };
            return Err(code.into());
        };
        let signed = message.verify(ctx.backend, &found.key).map_err(|_| Code::ConsentSignatureInvalid)?;
        if ctx.now > found.expires {
            return Err(Code::ConsentKeyExpired.into());
        }
        Ok(SignedByRegistered { signed, limits: found.limits.clone() })
    }
}

/// A key that nobody signs with, made once: making one takes longer than the verification whose time it stands in for.
fn decoy() -> &'static VerifyingKey {
    static DECOY: OnceLock<VerifyingKey> = OnceLock::new();
    DECOY.get_or_init(|| SigningKey::derive(b"waybill/1 decoy verification key").public().clone())
}

/// A hospital's front desk.
pub struct Registrar<'a> {
    /// Clock and primitives.
    pub ctx: Ctx<'a>,
    /// Who we are.
    pub hospital: &'a HospitalIdentity,
}

/// An opened registration, before the code was looked up.
pub struct RegistrationOpened {
    signed: Signed<Registration>,
}

impl RegistrationOpened {
    /// The row of the code: its hash, so that the store never holds a live code.
    #[must_use]
    pub fn code_row(&self) -> Digest {
        enrolment_row(&self.signed.message().code)
    }

    /// The pseudonym to register.
    #[must_use]
    pub fn pid(&self) -> &Pseudonym {
        &self.signed.message().pid
    }

    /// Where the answer is to go.
    #[must_use]
    pub fn reply_to(&self) -> &str {
        &self.signed.message().reply_to
    }
}

/// Under which row an enrolment code is stored: SHA-256 of a label and the code.
#[must_use]
pub fn enrolment_row(code: &Nonce) -> Digest {
    waybill_crypto::digest::sha256(&[b"waybill/1 enrolment code", &code.0])
}

/// An opened login, its signature not yet verified.
pub struct LoginOpened {
    request: Unverified<LoginRequest>,
}

impl LoginOpened {
    /// Whose registration to load.
    #[must_use]
    pub fn pid(&self) -> &Pseudonym {
        &self.request.peek().pid
    }

    /// The unique row that makes a replay visible.
    #[must_use]
    pub fn nonce_row(&self) -> Nonce {
        self.request.peek().nonce
    }
}

/// A login whose key, time and nonce were checked.
pub struct LoginVerified {
    request: Signed<LoginRequest>,
    local: LocalPatient,
    limits: Limits,
}

impl LoginVerified {
    /// The local patient.
    #[must_use]
    pub fn local(&self) -> &LocalPatient {
        &self.local
    }

    /// What is asked.
    #[must_use]
    pub fn purpose(&self) -> &Purpose {
        &self.request.message().purpose
    }

    /// The request.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.request.id()
    }

    /// What the key that asks may decide, and so may see.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A question about more than the key may decide is answered by a refusal; `None` when it may be answered.
    #[must_use]
    pub fn refusal(&self) -> Option<LoginOutcome> {
        let Purpose::Preview { scope, .. } = self.purpose() else { return None };
        self.limits.verify(scope, None).err().map(|rejection| LoginOutcome::Refused { code: rejection.code })
    }
}

impl Registrar<'_> {
    /// Opens a registration and verifies that the key it registers signed it.
    ///
    /// # Errors
    /// `registration-invalid` or a frame code.
    pub fn open_registration(&self, sealed: &SealedBytes) -> Result<RegistrationOpened, Rejection> {
        let id = self.hospital.id.as_str().as_bytes();
        let plain = sealed
            .open(self.ctx.backend, &self.hospital.hpke, SealPurpose::Registration, id)
            .map_err(|_| Code::RegistrationInvalid)?;
        let body: RegistrationBody = from_cbor("registration", &plain, crate::wire::MAX_PARCEL_BYTES)?;
        let unverified = body.registration.parse()?;
        let key = unverified.peek().consent_key.clone();
        let signed = unverified.verify(self.ctx.backend, &key).map_err(|_| Code::RegistrationInvalid)?;
        let said = signed.message();
        let fresh = said.time.distance_seconds(self.ctx.now) <= LOGIN_WINDOW_SECONDS;
        if said.hospital != self.hospital.id || !fresh {
            return Err(Code::RegistrationInvalid.into());
        }
        Ok(RegistrationOpened { signed })
    }

    /// Registers the key under the code's local patient. The shell deletes the code's row in the same transaction.
    ///
    /// # Errors
    /// `enrolment-code-invalid`.
    pub fn handle_registration(
        &self,
        opened: &RegistrationOpened,
        code: Option<&EnrolmentCode>,
        existing: Option<Registered>,
    ) -> Result<(Registered, Vec<Effect>), Rejection> {
        let said = opened.signed.message();
        let code = code.filter(|c| self.ctx.now <= c.expires).ok_or(Code::CodeInvalid)?;
        match (&code.attestation, code.relation) {
            (Some(attestation), _) => attestation.verify()?,
            (None, Relation::RegistrarAttested) => return Err(Code::CodeInvalid.into()),
            (None, _) => {}
        }
        let expires = code.key_expires.min(self.ctx.now.plus(REGISTRATION_LIFETIME_SECONDS));
        let mut registered = match existing {
            Some(r) if r.local != code.local => return Err(Code::CodeInvalid.into()),
            Some(r) => r,
            None => Registered { local: code.local.clone(), keys: Vec::new() },
        };
        registered.keys.retain(|k| k.key != said.consent_key);
        registered.keys.push(ConsentKey {
            key: said.consent_key.clone(),
            relation: code.relation,
            expires,
            limits: code.limits.clone(),
            attestation: code.attestation.clone(),
        });
        let answer = RegistrationAnswer {
            request: opened.signed.id(),
            hospital: self.hospital.id.clone(),
            keys: self.hospital.keys(),
            relation: code.relation,
            expires,
            limits: code.limits.clone(),
        };
        let answer = Signed::sign(self.ctx.backend, &self.hospital.signing, answer);
        let bound = opened.signed.id();
        let parcel = self.seal_answer(
            &said.reply_key,
            SealPurpose::RegistrationAnswer,
            bound,
            &answer,
            Kind::RegistrationAnswer,
        )?;
        Ok((registered, vec![tell(Recipient::Mailbox(said.reply_to.clone()), parcel)]))
    }

    /// Opens a login.
    ///
    /// # Errors
    /// `login-refused` or a frame code.
    pub fn open_login(&self, sealed: &SealedBytes) -> Result<LoginOpened, Rejection> {
        let id = self.hospital.id.as_str().as_bytes();
        let plain = sealed
            .open(self.ctx.backend, &self.hospital.hpke, SealPurpose::Login, id)
            .map_err(|_| Code::LoginRefused)?;
        let body: LoginBody = from_cbor("login", &plain, crate::wire::MAX_PARCEL_BYTES)?;
        let request = body.request.parse()?;
        if request.peek().hospital != self.hospital.id {
            return Err(Code::LoginRefused.into());
        }
        Ok(LoginOpened { request })
    }

    /// Verifies the login's signature and time. The shell inserts the nonce's unique row; a conflict is `login-replayed`.
    ///
    /// # Errors
    /// `login-refused`, `login-stale`, `registration-expired`; all alike to the outside.
    pub fn verify_login(
        &self,
        opened: LoginOpened,
        registered: Option<&Registered>,
    ) -> Result<LoginVerified, Rejection> {
        let verified = Registered::verify(registered, &self.ctx, opened.request);
        let SignedByRegistered { signed: request, limits } = verified.map_err(|e| match e.code {
            Code::ConsentKeyExpired => Code::RegistrationExpired,
            _ => Code::LoginRefused,
        })?;
        if request.message().time.distance_seconds(self.ctx.now) > LOGIN_WINDOW_SECONDS {
            return Err(Code::LoginStale.into());
        }
        let local = registered.map(|r| r.local.clone()).ok_or(Code::LoginRefused)?;
        Ok(LoginVerified { request, local, limits })
    }

    /// Vouches for the delegation key that the signed login names, if the commitment beside it is to the pseudonym that asks.
    ///
    /// # Errors
    /// `unexpected-message` when the login asked for something else; `login-refused` for a commitment to anything else.
    pub fn issue_voucher(&self, login: &LoginVerified) -> Result<LoginOutcome, Rejection> {
        let Purpose::Voucher { delegation_key, com_source, opening } = login.purpose() else {
            return Err(Code::UnexpectedMessage.into());
        };
        let pid = to_cbor(&login.request.message().pid);
        com_source.verify(commitment_kind::SOURCE, opening, &pid).map_err(|_| Code::LoginRefused)?;
        let voucher = Voucher {
            suite: SUITE,
            source: self.hospital.id.clone(),
            delegation_key: *delegation_key,
            com_source: *com_source,
            not_after: self.ctx.now.plus(VOUCHER_LIFETIME_SECONDS),
        };
        let voucher = Signed::sign(self.ctx.backend, &self.hospital.signing, voucher);
        let grant = VoucherGrant { voucher: SignedBytes::from(&voucher), chain: self.hospital.chain.clone() };
        Ok(LoginOutcome::Voucher { grant })
    }

    /// Signs and seals the answer to a login.
    ///
    /// # Errors
    /// `malformed` when the reply key is no point.
    pub fn answer_login(&self, login: &LoginVerified, outcome: LoginOutcome) -> Result<Effect, Rejection> {
        let said = login.request.message();
        let answer = LoginAnswer {
            request: login.request.id(),
            hospital: self.hospital.id.clone(),
            time: self.ctx.now,
            outcome,
            key_change: self.hospital.change.clone(),
        };
        let answer = Signed::sign(self.ctx.backend, &self.hospital.signing, answer);
        let parcel = self.seal_answer(
            &said.reply_key,
            SealPurpose::LoginAnswer,
            login.request.id(),
            &answer,
            Kind::LoginAnswer,
        )?;
        Ok(tell(Recipient::Mailbox(said.reply_to.clone()), parcel))
    }

    fn seal_answer<M: crate::signed::Message>(
        &self,
        to: &HpkePublicKey,
        purpose: SealPurpose,
        request: MessageId,
        answer: &Signed<M>,
        kind: Kind,
    ) -> Result<Vec<u8>, Rejection> {
        let plain = to_cbor(&SignedBytes::from(answer));
        let sealed = SealedBytes::seal(self.ctx.backend, to, purpose, request.as_bytes(), &plain)
            .map_err(|_| Code::Malformed)?;
        Ok(Parcel::pack(kind, &sealed))
    }
}
