//! A patient in the attacker's hands: registrations and logins by the role's functions, everything after that by hand.

use std::time::Duration;

use waybill_crypto::backend::Backend as _;
use waybill_crypto::commitment::{Commitment, Opening};
use waybill_crypto::keys::{Digest, HpkePublicKey, HpkeSecretKey, SigningKey};
use waybill_crypto::native::Native;
use waybill_crypto::pseudonym::{Pseudonym, RootSecret};
use waybill_protocol::ids::{HospitalId, Nonce, ProofId};
use waybill_protocol::messages::{
    Consent, Delegation, DelegationBody, LoginOutcome, Presentation, PresentationBody, ProofBundle, Purpose, Refusal,
    RefusalBody, SUITE, Terms, VoucherGrant,
};
use waybill_protocol::patient::{self as role, Contact, Enrolment};
use waybill_protocol::rejection::{Code, Stage};
use waybill_protocol::sealed::{SealPurpose, SealedBytes};
use waybill_protocol::signed::{Signed, SignedBytes};
use waybill_protocol::wire::{Kind, MAX_PARCEL_BYTES, Parcel, from_cbor, to_cbor};
use waybill_record::hides::Hides;
use waybill_record::scope::Scope;

use super::opening;
use crate::attack::scene::{Mailbox, OrFail as _, PATIENCE, Sample, Scene};
use crate::courier::now;
use crate::failure::Failure;
use crate::hospital;

/// How long a delegation runs. Units: seconds.
const LIFETIME_SECONDS: u64 = 3_600;

/// A registered patient whose root secret we hold.
pub struct Patient {
    /// The one secret.
    pub root: RootSecret,
    /// The record and the person.
    pub sample: Sample,
    /// What was pinned of hospital A.
    pub a: Contact,
    /// What was pinned of hospital B.
    pub b: Contact,
}

/// A delegation with everything that opens it.
pub struct Case {
    /// What was delegated.
    pub terms: Terms,
    /// Which part of the record.
    pub scope: Scope,
    /// But for these items.
    pub hides: Hides,
    /// Opens com_A, com_B, com_S and com_H.
    pub openings: [Opening; 4],
    /// Signs the delegation.
    pub delegation_key: SigningKey,
    /// Revokes it.
    pub revocation_key: SigningKey,
    /// What comes back is sealed to it.
    pub reply_key: HpkeSecretKey,
    /// What was posted to the authority.
    pub body: Option<DelegationBody>,
    /// What came back.
    pub bundle: Option<ProofBundle>,
}

impl Case {
    /// The proof with its evidence.
    ///
    /// # Panics
    /// Before it was obtained.
    #[must_use]
    pub fn proof(&self) -> &ProofBundle {
        self.bundle.as_ref().expect("the proof of this case was obtained")
    }

    /// The case's id.
    ///
    /// # Panics
    /// Before the proof was obtained.
    #[must_use]
    pub fn id(&self) -> ProofId {
        ProofId(self.proof().proof.parse().expect("the authority's proof parses").message_id().0)
    }
}

/// Registers a root secret at a hospital with a code handed over in person.
///
/// # Errors
/// [`Failure`] also when the hospital does not accept it.
pub async fn register(scene: &Scene, root: &RootSecret, hospital: &str, local: &str) -> Result<Contact, Failure> {
    let enrolment = hospital::enrolment_code(&scene.network.admin(hospital), local, "self").await?;
    register_with(scene, root, &enrolment).await?.or_fail("the hospital does not register the patient")
}

/// Registers with any enrolment; `None` when the hospital does not answer.
///
/// # Errors
/// [`Failure`].
pub async fn register_with(
    scene: &Scene,
    root: &RootSecret,
    enrolment: &Enrolment,
) -> Result<Option<Contact>, Failure> {
    let mut reply = scene.mailbox(Native.generate_signing_key()).await?;
    let patient = role::Patient { ctx: scene.ctx(), root };
    let (exchange, parcel) = patient.register(enrolment, 0, &reply.url.to_string()).or_fail("no registration")?;
    let mailbox = crate::attack::scene::url(&enrolment.mailbox)?;
    let party =
        if enrolment.hospital.as_str() == crate::demo::network::HOSPITAL_A { "hospital-a" } else { "hospital-b" };
    let mark = scene.mark(party);
    scene.post(&mailbox, parcel).await?;
    // A refusal of a stranger is silent: the hospital's log tells it.
    loop {
        if let Some(letter) = reply.next(scene, Duration::from_millis(50)).await? {
            let parcel = Parcel::parse(&letter).or_fail("the answer is no parcel")?;
            let contact = patient.accept_registration(&exchange, enrolment, 0, &parcel);
            return Ok(Some(contact.or_fail("the registration answer is refused")?));
        }
        if !scene.refusals(party, mark).is_empty() {
            return Ok(None);
        }
    }
}

impl Patient {
    /// Registers a fresh patient at both hospitals.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn register(scene: &Scene) -> Result<Self, Failure> {
        let sample = scene.admit().await?;
        let mut root = [0; 32];
        Native.random(&mut root);
        let root = RootSecret::from_bytes(root);
        let a = register(scene, &root, "hospital-a", &sample.id).await?;
        let b = register(scene, &root, "hospital-b", &sample.at_b).await?;
        Ok(Self { root, sample, a, b })
    }

    /// The role's functions over this patient's secret.
    #[must_use]
    pub fn role<'a>(&'a self, scene: &'a Scene) -> role::Patient<'a> {
        role::Patient { ctx: scene.ctx(), root: &self.root }
    }

    /// The pseudonym at a hospital.
    #[must_use]
    pub fn pid(&self, hospital: &HospitalId) -> Pseudonym {
        self.root.pid(hospital.as_str(), 0)
    }

    /// The key that consents at a hospital.
    #[must_use]
    pub fn consent_key(&self, hospital: &HospitalId) -> SigningKey {
        self.root.consent_key(hospital.as_str(), 0)
    }

    /// Everything that is decided before anything is signed.
    #[must_use]
    pub fn draft(&self, scope: Scope, hides: Hides) -> Case {
        let openings = [opening(), opening(), opening(), opening()];
        let (pid_a, pid_b) = (self.pid(&self.a.hospital), self.pid(&self.b.hospital));
        let commit = |kind: &str, n: usize, value: Vec<u8>| Commitment::commit(kind, &openings[n], &value);
        let (revocation_key, reply_key) = (Native.generate_signing_key(), Native.generate_hpke_key());
        let terms = Terms {
            source: self.a.hospital.clone(),
            destination: self.b.hospital.clone(),
            com_source: commit("pid-source", 0, to_cbor(&pid_a)),
            com_destination: commit("pid-destination", 1, to_cbor(&pid_b)),
            com_scope: commit("scope", 2, to_cbor(&scope)),
            com_hides: commit("hides", 3, to_cbor(&hides)),
            not_before: now(),
            expires: now().plus(LIFETIME_SECONDS),
            revocation_key: revocation_key.public().clone(),
            reply_key: *reply_key.public(),
        };
        let delegation_key = Native.generate_signing_key();
        Case { terms, scope, hides, openings, delegation_key, revocation_key, reply_key, body: None, bundle: None }
    }

    /// What a login asks for, to obtain the voucher of a case.
    #[must_use]
    pub fn voucher_purpose(case: &Case) -> Purpose {
        Purpose::Voucher {
            delegation_key: case.delegation_key.public().thumbprint(),
            com_source: case.terms.com_source,
            opening: case.openings[0].clone(),
        }
    }

    /// Logs in; gives the hospital's answer, or the code of its silent refusal.
    ///
    /// # Errors
    /// [`Failure`] when it neither answers nor refuses.
    pub async fn login(
        &self,
        scene: &Scene,
        contact: &Contact,
        purpose: Purpose,
    ) -> Result<Result<LoginOutcome, Code>, Failure> {
        let mut reply = scene.mailbox(Native.generate_signing_key()).await?;
        let login = self.role(scene).login(contact, purpose, &reply.url.to_string());
        let (exchange, parcel) = login.or_fail("no login")?;
        let party = if contact.hospital == self.a.hospital { "hospital-a" } else { "hospital-b" };
        let mark = scene.mark(party);
        scene.post(&crate::attack::scene::url(&contact.mailbox)?, parcel).await?;
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline {
            if let Some(letter) = reply.next(scene, Duration::from_millis(50)).await? {
                let parcel = Parcel::parse(&letter).or_fail("the answer is no parcel")?;
                let outcome = self.role(scene).accept_login(&exchange, contact, &parcel);
                return Ok(outcome.map_err(|rejection| rejection.code));
            }
            // What else the hospital refuses meanwhile is not about this login: a late letter of a case that our hands led, say.
            let of_case = |code: &Code| matches!(code, Code::UnknownCase | Code::UnexpectedMessage);
            let of_login = |code: &&Code| matches!(code.stage(), Stage::Login | Stage::Frame) && !of_case(code);
            if let Some(code) = scene.refusals(party, mark).iter().find(of_login) {
                return Ok(Err(*code));
            }
        }
        Err(Failure::failed("the hospital does not answer the login"))
    }

    /// Obtains a voucher for a case.
    ///
    /// # Errors
    /// [`Failure`] when the source does not vouch.
    pub async fn vouch(&self, scene: &Scene, case: &Case) -> Result<VoucherGrant, Failure> {
        match self.login(scene, &self.a, Self::voucher_purpose(case)).await? {
            Ok(LoginOutcome::Voucher { grant }) => Ok(grant),
            Ok(_) => Err(Failure::failed("the source answers something else than a voucher")),
            Err(code) => Err(Failure::failed(format!("the source does not vouch: {code}"))),
        }
    }

    /// Delegates honestly, up to the authority's proof.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn delegate(&self, scene: &Scene, scope: Scope, hides: Hides) -> Result<Case, Failure> {
        let mut case = self.draft(scope, hides);
        let voucher = self.vouch(scene, &case).await?;
        obtain(scene, &mut case, voucher).await?;
        Ok(case)
    }

    /// Delegates the whole record.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn delegate_all(&self, scene: &Scene) -> Result<Case, Failure> {
        self.delegate(scene, Scope::full(), Hides::default()).await
    }

    /// The honest consent to a case.
    #[must_use]
    pub fn consent(&self, case: &Case) -> Consent {
        Consent {
            proof: case.id(),
            pid: self.pid(&self.a.hospital),
            pid_opening: case.openings[0].clone(),
            scope: case.scope.clone(),
            scope_opening: case.openings[2].clone(),
            hides: case.hides.clone(),
            hides_opening: case.openings[3].clone(),
            destination: self.b.keys.thumb(),
        }
    }

    /// A consent signed by this patient's key and sealed to A's pinned key.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn seal_consent(&self, consent: Consent) -> Result<SealedBytes, Failure> {
        seal_consent(consent, &self.consent_key(&self.a.hospital), &self.a)
    }

    /// The honest presentation of a case.
    #[must_use]
    pub fn presentation(&self, case: &Case, consent: Digest) -> Presentation {
        Presentation {
            proof: case.id(),
            pid: self.pid(&self.b.hospital),
            pid_opening: case.openings[1].clone(),
            scope: case.scope.clone(),
            scope_opening: case.openings[2].clone(),
            source: self.a.keys.clone(),
            consent,
            reply_to: None,
        }
    }

    /// The parcel of a presentation, signed by this patient's key at B.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn pack_presentation(
        &self,
        presentation: Presentation,
        proof: &ProofBundle,
        consent: &SealedBytes,
    ) -> Result<Vec<u8>, Failure> {
        let key = self.consent_key(&self.b.hospital);
        pack_presentation(presentation, &key, &self.b, proof, consent)
    }

    /// Consents and presents a case at B, honestly.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn present(&self, scene: &Scene, case: &Case) -> Result<(), Failure> {
        let consent = self.seal_consent(self.consent(case))?;
        let parcel = self.pack_presentation(self.presentation(case, consent.digest()), case.proof(), &consent)?;
        scene.post(&crate::attack::scene::url(&self.b.mailbox)?, parcel).await
    }

    /// Delegates, presents and waits until the record is filed: an honest migration from the first message to the last.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn migrate(&self, scene: &Scene) -> Result<(Case, bool), Failure> {
        let case = self.delegate_all(scene).await?;
        self.present(scene, &case).await?;
        let filed = scene.is_filed(&case.id()).await?;
        Ok((case, filed))
    }
}

/// A consent signed by any key.
///
/// # Errors
/// [`Failure`].
pub fn seal_consent(consent: Consent, key: &SigningKey, to: &Contact) -> Result<SealedBytes, Failure> {
    let signed = Signed::sign(&Native, key, consent);
    seal(&to.keys.hpke, SealPurpose::Consent, to.hospital.as_str().as_bytes(), signed.bytes())
}

/// A presentation signed by any key.
///
/// # Errors
/// [`Failure`].
pub fn pack_presentation(
    presentation: Presentation,
    key: &SigningKey,
    to: &Contact,
    proof: &ProofBundle,
    consent: &SealedBytes,
) -> Result<Vec<u8>, Failure> {
    let presentation = Signed::sign(&Native, key, presentation);
    let body = PresentationBody {
        presentation: SignedBytes::from(&presentation),
        proof: proof.clone(),
        consent: consent.clone(),
    };
    let sealed = seal(&to.keys.hpke, SealPurpose::Presentation, to.hospital.as_str().as_bytes(), &to_cbor(&body))?;
    Ok(Parcel::pack(Kind::Presentation, &sealed))
}

/// Seals as the protocol does.
///
/// # Errors
/// [`Failure`] for a key that is no point.
pub fn seal(to: &HpkePublicKey, purpose: SealPurpose, bound: &[u8], plain: &[u8]) -> Result<SealedBytes, Failure> {
    SealedBytes::seal(&Native, to, purpose, bound, plain).or_fail("a key takes no seal")
}

/// A delegation of a case, signed by its key.
#[must_use]
pub fn delegation(case: &Case, reply_to: &Mailbox) -> Delegation {
    let mut nonce = [0; 16];
    Native.random(&mut nonce);
    Delegation {
        suite: SUITE,
        nonce: Nonce(nonce),
        delegation_key: case.delegation_key.public().thumbprint(),
        terms: case.terms.clone(),
        reply_to: reply_to.url.to_string(),
    }
}

/// Signs a delegation and puts the voucher beside it.
#[must_use]
pub fn delegation_body(said: Delegation, key: &SigningKey, voucher: VoucherGrant) -> DelegationBody {
    let signed = Signed::sign(&Native, key, said);
    DelegationBody { delegation: SignedBytes::from(&signed), key: key.public().clone(), voucher }
}

/// What the authority says to a delegation.
pub enum Answer {
    /// A proof, opened with the case's reply key; neither verified nor compared.
    Proof(Box<ProofBundle>),
    /// A signed refusal.
    Refused(Code),
    /// Nothing; its log has the code.
    Silent(Code),
}

/// Posts a delegation and waits for the authority's answer.
///
/// # Errors
/// [`Failure`] when there is none.
pub async fn submit(scene: &Scene, case: &Case, body: &DelegationBody, reply: &mut Mailbox) -> Result<Answer, Failure> {
    let mark = scene.mark("authority");
    scene.post(&scene.address("authority")?, Parcel::pack(Kind::Delegation, body)).await?;
    answer(scene, case, body, reply, mark).await
}

/// Waits for the authority's answer to a delegation that was posted; what its log says counts from `mark`.
///
/// # Errors
/// [`Failure`] when there is none.
pub async fn answer(
    scene: &Scene,
    case: &Case,
    body: &DelegationBody,
    reply: &mut Mailbox,
    mark: u64,
) -> Result<Answer, Failure> {
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut refused: Option<(Code, std::time::Instant)> = None;
    while std::time::Instant::now() < deadline {
        if let Some(letter) = reply.next(scene, Duration::from_millis(50)).await? {
            let parcel = Parcel::parse(&letter).or_fail("the answer is no parcel")?;
            if parcel.kind == Kind::Refusal {
                let body: RefusalBody = parcel.open(Kind::Refusal, "refusal").or_fail("a refusal does not decode")?;
                let trust = scene.trust().await?;
                let said: Signed<Refusal> =
                    trust.verify_authority(&scene.ctx(), &body.refusal).or_fail("a refusal is not the authority's")?;
                return Ok(Answer::Refused(said.message().code));
            }
            let sealed: SealedBytes = parcel.open(Kind::ProofAnswer, "proof answer").or_fail("no proof answer")?;
            let id = body.delegation.parse().or_fail("a delegation does not parse")?.message_id();
            let plain = sealed.open(&Native, &case.reply_key, SealPurpose::ProofAnswer, id.as_bytes());
            let bundle = from_cbor("proof", &plain.or_fail("the proof answer does not open")?, MAX_PARCEL_BYTES);
            return Ok(Answer::Proof(Box::new(bundle.or_fail("the proof does not decode")?)));
        }
        match (refused, scene.refusals("authority", mark).first()) {
            // A signed refusal may still be on its way.
            (None, Some(code)) => refused = Some((*code, std::time::Instant::now() + Duration::from_secs(1))),
            (Some((code, until)), _) if std::time::Instant::now() >= until => return Ok(Answer::Silent(code)),
            _ => {}
        }
    }
    Err(Failure::failed("the authority does not answer the delegation"))
}

/// Delegates with a voucher, up to the proof.
///
/// # Errors
/// [`Failure`] when there is no proof.
pub async fn obtain(scene: &Scene, case: &mut Case, voucher: VoucherGrant) -> Result<(), Failure> {
    let mut reply = scene.mailbox(Native.generate_signing_key()).await?;
    let body = delegation_body(delegation(case, &reply), &case.delegation_key, voucher);
    match submit(scene, case, &body, &mut reply).await? {
        Answer::Proof(bundle) => {
            (case.body, case.bundle) = (Some(body), Some(*bundle));
            Ok(())
        }
        Answer::Refused(code) | Answer::Silent(code) => {
            Err(Failure::failed(format!("the authority issues no proof: {code}")))
        }
    }
}
