//! Reads evidence aloud: which sentence of the case is proven by which signature, and who lied where somebody did.

use waybill_crypto::backend::Backend;
use waybill_crypto::certificate::{Profile, TrustAnchor, verify_chain_offline};
use waybill_crypto::keys::{HpkeSecretKey, VerifyingKey};
use waybill_crypto::stream::{RecordKey, StreamKeys};

use super::Evidence;
use crate::ids::{MessageId, ProofId, SessionId, Timestamp};
use crate::log::{CheckpointPolicy, LeafKind, LogEvidence};
use crate::messages::{Chain, EndState, KeyLodgement, Manifest, MigrationProof, OutcomeClass, TransferBody};
use crate::sealed::SealPurpose;
use crate::signed::{Message, Signed, SignedBytes};
use crate::source::open_receipt_detail;

/// One sentence about the case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// The stable name of the check.
    pub check: &'static str,
    /// What is so if it holds.
    pub text: String,
    /// Whose signature shows it.
    pub signer: String,
    /// Whether it holds.
    pub finding: Finding,
}

/// Whether a sentence holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The signature and every binding hold.
    Proven,
    /// The message is in the file and does not prove the sentence.
    Failed,
    /// The file does not hold the message.
    Absent,
}

/// What the file as a whole shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The sentences, in the order of the case.
    pub sentences: Vec<Sentence>,
    /// The signed end of the case, when proven.
    pub end: Option<EndState>,
    /// Who is shown to have lied, if anybody.
    pub liar: Option<String>,
}

impl Verdict {
    /// Whether nothing failed and the proof itself holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        let proof = self.sentences.iter().any(|s| s.check == "proof" && s.finding == Finding::Proven);
        proof && self.sentences.iter().all(|s| s.finding != Finding::Failed)
    }

    /// The first check that failed.
    #[must_use]
    pub fn first_failure(&self) -> Option<&Sentence> {
        self.sentences.iter().find(|s| s.finding == Finding::Failed)
    }
}

/// Judges a file under a root and, where the reader has one, under the reader's own choice of log and witnesses.
///
/// Every chain is judged as of the time of the message it signed; a revocation list of that time is not part of the file.
///
/// Security: without `policy` the log's sentences rest on witnesses that the file itself names: whoever holds the authority's log
/// key can make such a file. The sentences say so.
#[must_use]
pub fn judge(
    backend: &dyn Backend,
    root: &TrustAnchor,
    policy: Option<&CheckpointPolicy>,
    evidence: &Evidence,
) -> Verdict {
    let verdict = Verdict { sentences: Vec::new(), end: None, liar: None };
    let mut bench = Bench { backend, root, policy, evidence, verdict };
    bench.run();
    bench.verdict
}

/// Whether two policies ask for the same signatures, in whatever order they name them.
fn same_policy(one: &CheckpointPolicy, other: &CheckpointPolicy) -> bool {
    let covers = |a: &CheckpointPolicy, b: &CheckpointPolicy| a.witnesses().iter().all(|w| b.witnesses().contains(w));
    one.log_key() == other.log_key() && one.quorum() == other.quorum() && covers(one, other) && covers(other, one)
}

struct Bench<'a> {
    backend: &'a dyn Backend,
    root: &'a TrustAnchor,
    policy: Option<&'a CheckpointPolicy>,
    evidence: &'a Evidence,
    verdict: Verdict,
}

impl Bench<'_> {
    fn run(&mut self) {
        if let Some(policy) = self.policy {
            let same = same_policy(policy, &self.evidence.log);
            self.rule("log-policy", "The file relies on the log and the witnesses asked for.", "you", same);
        }
        let authority = self.authority();
        let proof = authority.as_ref().and_then(|key| self.proof(key));
        if let (Some(authority), Some(proof)) = (authority, proof) {
            let voucher = self.delegation(&proof);
            let session = self.request(&proof);
            let source = self.source_key(&proof, voucher.as_ref());
            self.grant(&authority, &proof, session);
            let manifest = self.manifest(source.as_ref(), &proof, session);
            self.exchange(&authority, source.as_ref(), &proof, manifest.as_ref(), session);
            self.ending(&authority, &proof, manifest.as_ref());
            self.revocation(&proof);
        }
        let whole = self.evidence.checksum_holds();
        self.say(
            "checksum",
            "The file is whole.",
            "nobody: a checksum",
            if whole { Finding::Proven } else { Finding::Failed },
        );
    }

    fn say(&mut self, check: &'static str, text: impl Into<String>, signer: impl Into<String>, finding: Finding) {
        self.verdict.sentences.push(Sentence { check, text: text.into(), signer: signer.into(), finding });
    }

    fn rule(&mut self, check: &'static str, text: impl Into<String>, signer: impl Into<String>, holds: bool) {
        self.say(check, text, signer, if holds { Finding::Proven } else { Finding::Failed });
    }

    fn chain(&self, chain: &Chain, profile: Profile, at: Timestamp) -> Option<(String, VerifyingKey)> {
        let certificates = chain.certificates().ok()?;
        let verified = verify_chain_offline(self.backend, self.root, &certificates, profile, at.0).ok()?;
        Some((verified.subject, verified.public_key))
    }

    fn verify<M: Message>(&self, bytes: &SignedBytes<M>, key: &VerifyingKey) -> Option<Signed<M>> {
        bytes.parse().ok()?.verify(self.backend, key).ok()
    }

    fn logged(&self, evidence: &LogEvidence, kind: LeafKind, message: MessageId) -> bool {
        evidence.verify(self.backend, self.log(), kind, &message.0).is_ok()
    }

    /// The log and witnesses that count: the reader's, or else the file's.
    fn log(&self) -> &CheckpointPolicy {
        self.policy.unwrap_or(&self.evidence.log)
    }

    fn logged_rule(&mut self, check: &'static str, text: &str, holds: bool) {
        let witnesses: Vec<_> = self.log().witnesses().iter().map(|w| w.name().as_str()).collect();
        let (names, quorum) = (witnesses.join(", "), self.log().quorum());
        let named_by = if self.policy.is_some() { "" } else { ", named by this file" };
        let text = format!("{text}, seen by at least {quorum} of {} witnesses ({names}{named_by}).", witnesses.len());
        self.rule(check, text, "the log and its witnesses", holds);
    }

    /// The authority's word of that time counts if its key was certified then: by a chain in the file that was valid then, or, for
    /// a certificate renewed in mid-case, because it was certified both before (with the proof) and after (with its description).
    fn authority_said(&self, at: Timestamp) -> bool {
        let certified = |chain, at| self.chain(chain, Profile::ProofSigning, at).is_some();
        let (before, after) = (&self.evidence.proof.chain, &self.evidence.authority.chain);
        let described = self.described_at();
        certified(before, at)
            || certified(after, at)
            || ((self.issued_at()..=described).contains(&at) && certified(after, described))
    }

    fn described_at(&self) -> Timestamp {
        self.evidence.authority.statement.parse().map_or(Timestamp(0), |s| s.peek().time)
    }

    fn issued_at(&self) -> Timestamp {
        self.evidence.proof.proof.parse().map_or(Timestamp(0), |p| p.peek().issued_at)
    }

    fn authority(&mut self) -> Option<VerifyingKey> {
        let body = &self.evidence.authority;
        // The description may be older than the chain beside it, which was renewed since; never younger.
        let described = self.described_at();
        let certified = self
            .chain(&body.chain, Profile::ProofSigning, described)
            .or_else(|| self.chain(&body.chain, Profile::ProofSigning, self.issued_at().max(described)));
        let found = certified.and_then(|(subject, key)| {
            let statement = self.verify(&body.statement, &key)?;
            let said = statement.message();
            let log = self.log();
            let same_log = said.log_origin == log.origin().as_str() && &said.log_key == log.log_key().public_key();
            (said.authority.as_str() == subject && same_log).then_some((subject, key))
        });
        let name = found.as_ref().map_or("the authority", |(name, _)| name.as_str()).to_owned();
        let text = format!("The keys and the log in this file are those of {name}.");
        self.rule("authority", text, format!("{name}, certified by the root"), found.is_some());
        found.map(|(_, key)| key)
    }

    fn proof(&mut self, authority: &VerifyingKey) -> Option<Signed<MigrationProof>> {
        let bundle = &self.evidence.proof;
        let certified = self.chain(&bundle.chain, Profile::ProofSigning, self.issued_at());
        let proof = certified.filter(|(_, key)| key == authority).and_then(|(name, key)| {
            self.verify(&bundle.proof, &key).filter(|p| p.message().authority.as_str() == name)
        });
        let text = proof.as_ref().map_or_else(
            || "The authority issued a migration proof.".to_owned(),
            |p| {
                let t = &p.message().terms;
                format!("The authority issued one migration proof from {} to {}.", t.source, t.destination)
            },
        );
        self.rule("proof", text, "the authority's proof-signing key", proof.is_some());
        let proof = proof?;
        let logged = self.logged(&bundle.evidence, LeafKind::PROOF, proof.id());
        let text = format!("The proof stands in the public log at index {}", bundle.evidence.index);
        self.logged_rule("proof-logged", &text, logged);
        Some(proof)
    }

    /// Gives the key that vouched, if it did.
    fn delegation(&mut self, proof: &Signed<MigrationProof>) -> Option<VerifyingKey> {
        let terms = &proof.message().terms;
        let Some(body) = &self.evidence.delegation else {
            self.say("delegation", "The patient delegated exactly this.", "the delegation key", Finding::Absent);
            return None;
        };
        let delegated = self.verify(&body.delegation, &body.key).is_some_and(|d| {
            d.id() == proof.message().delegation
                && &d.message().terms == terms
                && d.message().delegation_key == body.key.thumbprint()
        });
        // The authority verified the voucher when it issued the proof: that is the voucher's time.
        let vouched = self.chain(&body.voucher.chain, Profile::HospitalSigning, proof.message().issued_at);
        let vouched = vouched.filter(|(id, key)| {
            self.verify(&body.voucher.voucher, key).is_some_and(|v| {
                let v = v.message();
                id == terms.source.as_str()
                    && v.source == terms.source
                    && v.delegation_key == body.key.thumbprint()
                    && v.com_source == terms.com_source
            })
        });
        self.rule(
            "delegation",
            "The holder of the delegation key delegated exactly this.",
            "the delegation key",
            delegated,
        );
        let text = format!("{} vouched that the delegation key is held by a patient registered there.", terms.source);
        self.rule("voucher", text, terms.source.as_str(), vouched.is_some());
        vouched.map(|(_, key)| key)
    }

    fn request(&mut self, proof: &Signed<MigrationProof>) -> Option<SessionId> {
        let to = proof.message().terms.destination.clone();
        let text = format!("{to} asked for the record with the patient's sealed consent, under a one-time key.");
        let Some(body) = &self.evidence.request else {
            self.say("request", text, to.as_str(), Finding::Absent);
            return None;
        };
        let request = self
            .chain_of_request(body)
            .filter(|(id, _)| id == to.as_str())
            .and_then(|(_, key)| self.verify(&body.request, &key).filter(|r| r.message().keys.signing == key))
            .filter(|r| r.message().proof.0 == proof.id().0 && r.message().consent == body.consent.digest())
            .filter(|_| body.proof == self.evidence.proof);
        self.rule("request", text, to.as_str(), request.is_some());
        request.map(|r| SessionId(r.id().0))
    }

    fn chain_of_request(&self, body: &TransferBody) -> Option<(String, VerifyingKey)> {
        self.chain(&body.chain, Profile::HospitalSigning, body.request.parse().ok()?.peek().time)
    }

    /// The source's key is the one that vouched for the patient. A file without the patient's delegation cannot show that; then it
    /// rests on the authority, which certifies keys.
    fn source_key(&mut self, proof: &Signed<MigrationProof>, voucher: Option<&VerifyingKey>) -> Option<VerifyingKey> {
        let from = &proof.message().terms.source;
        let text = match voucher {
            Some(_) => format!("The source's signing key is {from}'s, the one that vouched for the patient."),
            None => format!("The source's signing key is {from}'s, as certified by the authority."),
        };
        let Some(signer) = self.evidence.source.as_ref() else {
            self.say("source-key", text, "certified by the root", Finding::Absent);
            return None;
        };
        let key = self
            .source_times(proof)
            .into_iter()
            .find_map(|at| self.chain(&signer.chain, Profile::HospitalSigning, at))
            .filter(|(id, key)| id == from.as_str() && key == &signer.keys.signing)
            .map(|(_, key)| key)
            .filter(|key| voucher.is_none_or(|voucher| voucher == key));
        self.rule("source-key", text, "certified by the root", key.is_some());
        key
    }

    /// When the source signed: after it froze the record, before the authority released the key.
    fn source_times(&self, proof: &Signed<MigrationProof>) -> Vec<Timestamp> {
        let frozen = self.evidence.manifest.as_ref().and_then(|m| m.parse().ok()).map(|m| m.peek().snapshot_at);
        let released =
            self.evidence.release.as_ref().and_then(|r| r.release.parse().ok()).map(|release| release.peek().time);
        let times: Vec<_> = frozen.into_iter().chain(released).collect();
        if times.is_empty() { vec![proof.message().issued_at] } else { times }
    }

    fn grant(&mut self, authority: &VerifyingKey, proof: &Signed<MigrationProof>, session: Option<SessionId>) {
        let text = "The authority spent the proof on this one session.";
        let Some(body) = &self.evidence.grant else {
            return self.say("grant", text, "the authority", Finding::Absent);
        };
        let grant = self.verify(&body.grant, authority).filter(|g| {
            g.message().proof.0 == proof.id().0
                && Some(g.message().session) == session
                && g.message().to == proof.message().terms.destination
                && self.authority_said(g.message().time)
        });
        let logged = grant.as_ref().is_some_and(|g| self.logged(&body.evidence, LeafKind::GRANT, g.id()));
        self.rule("grant", text, "the authority", grant.is_some());
        self.logged_rule("grant-logged", "The grant stands in the public log", logged);
    }

    fn manifest(
        &mut self,
        source: Option<&VerifyingKey>,
        proof: &Signed<MigrationProof>,
        session: Option<SessionId>,
    ) -> Option<Signed<Manifest>> {
        let from = proof.message().terms.source.to_string();
        let text = format!("{from} listed what it sent, and committed to the key it is encrypted under.");
        // Without the source's certified key nothing can be said about what it signed: neither that it holds nor that it fails.
        let (Some(bytes), Some(source)) = (&self.evidence.manifest, source) else {
            self.say("manifest", text, from, Finding::Absent);
            return None;
        };
        let manifest = self
            .verify(bytes, source)
            .filter(|m| m.message().proof.0 == proof.id().0 && Some(m.message().session) == session);
        self.rule("manifest", text, from, manifest.is_some());
        manifest
    }

    fn exchange(
        &mut self,
        authority: &VerifyingKey,
        source: Option<&VerifyingKey>,
        proof: &Signed<MigrationProof>,
        manifest: Option<&Signed<Manifest>>,
        session: Option<SessionId>,
    ) {
        let terms = &proof.message().terms;
        let destination = self.destination_key(proof);
        let delivery = self.evidence.delivery.as_ref().map(|d| {
            destination.as_ref().and_then(|key| self.verify(d, key)).filter(|d| {
                d.message().proof.0 == proof.id().0 && manifest.is_none_or(|m| d.message().manifest.0 == m.id().0)
            })
        });
        let text = format!("{} held every encrypted chunk under that list.", terms.destination);
        self.optional("delivery", text, terms.destination.to_string(), delivery.as_ref().map(Option::is_some));
        let Some(body) = &self.evidence.release else {
            return self.say(
                "release",
                "The authority released the key against that receipt.",
                "the authority",
                Finding::Absent,
            );
        };
        let lodged = source.map(|key| {
            self.verify(&body.lodgement, key).filter(|l| {
                l.message().proof.0 == proof.id().0 && manifest.is_none_or(|m| l.message().manifest.0 == m.id().0)
            })
        });
        let text = format!("{} lodged a sealed key for exactly that list.", terms.source);
        self.optional("lodgement", text, terms.source.to_string(), lodged.as_ref().map(Option::is_some));
        let lodged = lodged.flatten();
        let lodgement_id = body.lodgement.parse().map(|l| l.message_id()).ok();
        let delivery = delivery.flatten();
        let release = self.verify(&body.release, authority).filter(|r| {
            r.message().proof.0 == proof.id().0
                && lodgement_id == Some(r.message().lodgement)
                && delivery.as_ref().is_none_or(|d| d.id() == r.message().delivery)
                && self.authority_said(r.message().time)
        });
        let logged = release.as_ref().is_some_and(|r| self.logged(&body.evidence, LeafKind::RELEASE, r.id()));
        self.rule(
            "release",
            "The authority released the key against that receipt.",
            "the authority",
            release.is_some(),
        );
        self.logged_rule("release-logged", "The release stands in the public log", logged);
        if let (Some(lodged), Some(manifest)) = (lodged, manifest) {
            self.revealed(&lodged, manifest, session, terms.source.as_str());
        }
    }

    fn optional(&mut self, check: &'static str, text: String, signer: String, holds: Option<bool>) {
        match holds {
            Some(holds) => self.rule(check, text, signer, holds),
            None => self.say(check, text, signer, Finding::Absent),
        }
    }

    fn destination_key(&self, proof: &Signed<MigrationProof>) -> Option<VerifyingKey> {
        let request = self.evidence.request.as_ref()?;
        self.chain_of_request(request)
            .filter(|(id, _)| id == proof.message().terms.destination.as_str())
            .map(|(_, key)| key)
    }

    /// The dispute: the destination says that the lodged key was wrong, and shows its one-time key. Who lied?
    fn revealed(
        &mut self,
        lodged: &Signed<KeyLodgement>,
        manifest: &Signed<Manifest>,
        session: Option<SessionId>,
        source: &str,
    ) {
        let Some(revealed) = &self.evidence.revealed_key else { return };
        let secret = HpkeSecretKey::from_bytes(&revealed.0);
        let expected =
            self.evidence.request.as_ref().and_then(|r| r.request.parse().ok()).map(|r| r.peek().session_key);
        let genuine = expected.as_ref() == Some(secret.public());
        self.rule("revealed-key", "The revealed one-time key is the one the request named.", "the request", genuine);
        let (Some(session), true) = (session, genuine) else { return };
        let bound = manifest.id();
        let opened =
            lodged.message().sealed_key.open(self.backend, &secret, SealPurpose::RecordKey, bound.as_bytes()).ok();
        let key = opened.and_then(|k| <[u8; 32]>::try_from(k.as_slice()).ok()).map(RecordKey::from_bytes);
        let right = key
            .is_some_and(|k| StreamKeys::derive(&session.0, &k).match_commitment(&manifest.message().key_commitment));
        let liar = if right { self.destination_name() } else { source.to_owned() };
        let text = if right {
            "The lodged key is the one the list commits to: the destination's complaint is false."
        } else {
            "The lodged key is not the one the list commits to: the source lodged a wrong key."
        };
        self.say("judgement", text, "arithmetic", Finding::Proven);
        self.verdict.liar = Some(liar);
    }

    fn destination_name(&self) -> String {
        self.evidence
            .proof
            .proof
            .parse()
            .map_or_else(|_| "the destination".into(), |p| p.peek().terms.destination.to_string())
    }

    fn ending(
        &mut self,
        authority: &VerifyingKey,
        proof: &Signed<MigrationProof>,
        manifest: Option<&Signed<Manifest>>,
    ) {
        let Some(body) = &self.evidence.statement else {
            return self.say("statement", "The authority signed how the case ended.", "the authority", Finding::Absent);
        };
        let statement = self
            .verify(&body.statement, authority)
            .filter(|s| s.message().proof.0 == proof.id().0 && self.authority_said(s.message().time));
        let logged = statement.as_ref().is_some_and(|s| self.logged(&body.evidence, LeafKind::STATEMENT, s.id()));
        let state = statement.as_ref().map(|s| s.message().state);
        let text = format!("The case ended: {}.", state.map_or("?", EndState::as_str));
        self.rule("statement", text, "the authority", statement.is_some());
        self.logged_rule("statement-logged", "The end stands in the public log", logged);
        self.verdict.end = state.filter(|_| logged);
        self.receipt(proof, manifest, statement.and_then(|s| s.message().cause), state);
    }

    fn receipt(
        &mut self,
        proof: &Signed<MigrationProof>,
        manifest: Option<&Signed<Manifest>>,
        cause: Option<MessageId>,
        state: Option<EndState>,
    ) {
        let to = proof.message().terms.destination.to_string();
        let Some(body) = self.evidence.statement.as_ref().and_then(|s| s.receipt.as_ref()) else {
            if matches!(state, Some(EndState::Filed | EndState::Rejected)) {
                self.say("receipt", "What became of the record.", to, Finding::Absent);
            }
            return;
        };
        let expected = if state == Some(EndState::Filed) { OutcomeClass::Filed } else { OutcomeClass::Rejected };
        // The receipt counts under the key the request was signed with, not under any certificate of the same name.
        let pinned = self.destination_key(proof);
        let signed_at = body.receipt.parse().map_or(Timestamp(0), |r| r.peek().time);
        let receipt = self
            .chain(&body.chain, Profile::HospitalSigning, signed_at)
            .filter(|(id, key)| *id == to && pinned.as_ref().is_none_or(|p| p == key))
            .and_then(|(_, key)| self.verify(&body.receipt, &key))
            .filter(|r| r.message().proof.0 == proof.id().0 && Some(r.id()) == cause && r.message().outcome == expected)
            .filter(|r| manifest.is_none_or(|m| r.message().manifest.0 == m.id().0));
        let text = match expected {
            OutcomeClass::Filed => format!("{to} filed the record."),
            OutcomeClass::Rejected => format!("{to} rejected the record."),
        };
        self.rule("receipt", text, to.clone(), receipt.is_some());
        let Some(opening) = &self.evidence.receipt else {
            return self.say("receipt-detail", "What was filed, by type.", to, Finding::Absent);
        };
        let plain = crate::wire::to_cbor(opening);
        let detail = receipt.and_then(|r| open_receipt_detail(&plain, &r.message().commitment).ok());
        let text = detail.as_ref().map_or_else(
            || "What was filed, by type.".to_owned(),
            |(_, d)| {
                format!("Of {} resources offered, {} were filed and {} set aside.", d.offered, d.filed, d.quarantined)
            },
        );
        self.rule("receipt-detail", text, to, detail.is_some());
    }

    fn revocation(&mut self, proof: &Signed<MigrationProof>) {
        let Some(body) = &self.evidence.revocation else { return };
        let key = if body.chain.0.is_empty() {
            Some(proof.message().terms.revocation_key.clone())
        } else {
            // A hospital may revoke only if the proof names it.
            let terms = &proof.message().terms;
            let signed_at = body.revocation.parse().map_or(Timestamp(0), |r| r.peek().time);
            self.chain(&body.chain, Profile::HospitalSigning, signed_at)
                .filter(|(id, _)| id == terms.source.as_str() || id == terms.destination.as_str())
                .map(|(_, key)| key)
        };
        let holds = key
            .and_then(|key| self.verify(&body.revocation, &key))
            .is_some_and(|r| r.message().proof == ProofId(proof.id().0));
        self.rule(
            "revocation",
            "The holder, or a hospital of the case, revoked the proof.",
            "the revocation key or a hospital",
            holds,
        );
    }
}
