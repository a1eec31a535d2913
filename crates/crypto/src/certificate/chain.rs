//! From the bytes of a chain to a verified certificate.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use der::Encode as _;
use thiserror::Error;

use super::encoding::SubjectKey;
use super::issue::verify_signature;
use super::lint::{self, LintFailure, Linted};
use super::profile::{PartyName, Profile};
use super::revocation::Crl;
use super::root::RootPublicKey;
use super::{BACKDATE_SECONDS, Serial};
use crate::backend::Backend;
use crate::digest::{Digest, sha256};
use crate::keys::VerifyingKey;

/// How many verified chains a [`ChainCache`] keeps.
const CACHED_CHAINS: usize = 1024;

/// Which certificate of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// The holder's.
    Leaf,
    /// The authority's issuing certificate.
    Issuing,
    /// The pinned root.
    Root,
}

/// Why a chain does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// A chain is leaf and issuing certificate, no more and no less.
    #[error("the chain is not leaf and issuing certificate")]
    ChainLength,
    /// A certificate departs from its profile in another way than those below.
    #[error("a certificate does not match its profile ({0:?})")]
    Profile(Link, #[source] LintFailure),
    /// A certificate was made for another use.
    #[error("the certificate is for another use")]
    WrongUsage,
    /// A certificate's validity has ended.
    #[error("a certificate has expired")]
    Expired,
    /// A certificate's validity has not begun.
    #[error("a certificate is not yet valid")]
    NotYetValid,
    /// The chain does not lead to the pinned root.
    #[error("the certificate is not from a known issuer")]
    UnknownIssuer,
    /// A signature in the chain does not verify.
    #[error("a certificate's signature does not verify")]
    Signature,
    /// The certificate is on the revocation list.
    #[error("the certificate is revoked")]
    Revoked,
    /// The revocation list is past its end, or from the future.
    #[error("the revocation list is stale")]
    StaleCrl,
    /// The revocation list is not that of the leaf's issuer.
    #[error("the revocation list is another issuer's")]
    WrongCrl,
}

impl CertificateError {
    fn from_lint(link: Link, failure: LintFailure) -> Self {
        match failure {
            LintFailure::Expired => Self::Expired,
            LintFailure::NotYetValid => Self::NotYetValid,
            LintFailure::BasicConstraints | LintFailure::KeyUsage | LintFailure::ExtendedKeyUsage => Self::WrongUsage,
            other => Self::Profile(link, other),
        }
    }
}

/// A validity, in unix seconds.
#[derive(Debug, Clone, Copy)]
struct Window {
    not_before: u64,
    not_after: u64,
}

impl Window {
    fn check(self, link: Link, now: u64) -> Result<(), CertificateError> {
        lint::check_window(self.not_before, self.not_after, now).map_err(|e| CertificateError::from_lint(link, e))
    }
}

/// A pinned root certificate.
#[derive(Debug, Clone)]
pub struct TrustAnchor {
    der: Vec<u8>,
    name: PartyName,
    key: RootPublicKey,
    window: Window,
}

impl TrustAnchor {
    /// Takes a root certificate, which must match its profile and be signed by itself.
    ///
    /// # Errors
    /// [`CertificateError`]. Security: the caller pins these bytes; whoever can change them decides whom everybody trusts.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let linted = lint::lint_form(der, Profile::Root).map_err(|e| CertificateError::from_lint(Link::Root, e))?;
        let SubjectKey::P384(key) = &linted.key else { return Err(CertificateError::WrongUsage) };
        let (to_be_signed, signature) = signed_parts(&linted)?;
        key.verify(&to_be_signed, &signature).map_err(|_| CertificateError::Signature)?;
        let window = Window { not_before: linted.not_before, not_after: linted.not_after };
        Ok(Self { der: der.to_vec(), name: linted.subject.clone(), key: key.clone(), window })
    }

    /// The certificate.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// The name of the authority.
    #[must_use]
    pub const fn name(&self) -> &PartyName {
        &self.name
    }

    /// The end of its validity, in unix seconds.
    #[must_use]
    pub const fn not_after(&self) -> u64 {
        self.window.not_after
    }

    /// SHA-256 of the certificate: what people compare.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        sha256(&[&self.der])
    }

    /// Verifies an issuing certificate at a time.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn verify_issuer(&self, der: &[u8], now: u64) -> Result<VerifiedIssuer, CertificateError> {
        let fail = |failure| CertificateError::from_lint(Link::Issuing, failure);
        let linted = lint::lint_form(der, Profile::Issuing).map_err(fail)?;
        let SubjectKey::P256(key) = &linted.key else { return Err(CertificateError::WrongUsage) };
        let own = SubjectKey::P384(self.key.clone());
        check_issuer(&linted, &self.name, &own)?;
        let (to_be_signed, signature) = signed_parts(&linted)?;
        self.key.verify(&to_be_signed, &signature).map_err(|_| CertificateError::Signature)?;
        let window = Window { not_before: linted.not_before, not_after: linted.not_after };
        self.window.check(Link::Root, now)?;
        window.check(Link::Issuing, now)?;
        Ok(VerifiedIssuer { name: linted.subject.clone(), key: key.clone(), window })
    }
}

/// An issuing certificate that a pinned root signed. Only [`TrustAnchor::verify_issuer`] makes one.
#[derive(Debug, Clone)]
pub struct VerifiedIssuer {
    name: PartyName,
    key: VerifyingKey,
    window: Window,
}

impl VerifiedIssuer {
    /// Its subject.
    #[must_use]
    pub const fn name(&self) -> &PartyName {
        &self.name
    }

    /// Its key.
    #[must_use]
    pub const fn public_key(&self) -> &VerifyingKey {
        &self.key
    }

    /// The end of its validity, in unix seconds.
    #[must_use]
    pub const fn not_after(&self) -> u64 {
        self.window.not_after
    }
}

/// A leaf certificate whose chain, profile, validity and standing were verified. Only this module makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedCertificate {
    /// The party's name.
    pub subject: String,
    /// For what the key may be used.
    pub profile: Profile,
    /// The key.
    pub public_key: VerifyingKey,
    /// The serial number.
    pub serial: Serial,
    /// The end of its validity, in unix seconds.
    pub not_after: u64,
    /// SHA-256 of the certificate.
    pub fingerprint: Digest,
}

/// A chain whose signatures verified; validity and standing are checked at each use.
#[derive(Debug, Clone)]
struct SignedChain {
    leaf: VerifiedCertificate,
    windows: [(Link, Window); 3],
    issuer_key_id: [u8; 20],
}

impl SignedChain {
    /// Verifies form, profile and signatures; not times and not standing.
    fn verify(
        backend: &dyn Backend,
        anchor: &TrustAnchor,
        chain: &[&[u8]],
        profile: Profile,
        now: u64,
    ) -> Result<Self, CertificateError> {
        let [leaf_der, issuing_der] = chain else { return Err(CertificateError::ChainLength) };
        if profile.path_length().is_some() {
            return Err(CertificateError::WrongUsage);
        }
        let issuer = anchor.verify_issuer(issuing_der, now)?;
        let fail = |failure| CertificateError::from_lint(Link::Leaf, failure);
        let linted = lint::lint_form(leaf_der, profile).map_err(fail)?;
        let SubjectKey::P256(public_key) = &linted.key else { return Err(CertificateError::WrongUsage) };
        let issuer_key = SubjectKey::P256(issuer.key.clone());
        check_issuer(&linted, &issuer.name, &issuer_key)?;
        let (to_be_signed, signature) = signed_parts(&linted)?;
        verify_signature(backend, &issuer_key, &to_be_signed, &signature).map_err(|_| CertificateError::Signature)?;
        let leaf = VerifiedCertificate {
            subject: linted.subject.as_str().to_owned(),
            profile,
            public_key: public_key.clone(),
            serial: linted.serial,
            not_after: linted.not_after,
            fingerprint: sha256(&[leaf_der]),
        };
        let own = Window { not_before: linted.not_before, not_after: linted.not_after };
        let windows = [(Link::Root, anchor.window), (Link::Issuing, issuer.window), (Link::Leaf, own)];
        Ok(Self { leaf, windows, issuer_key_id: issuer_key.key_id() })
    }

    /// Checks what changes with time.
    fn check(&self, profile: Profile, now: u64, crl: Option<&Crl>) -> Result<VerifiedCertificate, CertificateError> {
        if self.leaf.profile != profile {
            return Err(CertificateError::WrongUsage);
        }
        for (link, window) in self.windows {
            window.check(link, now)?;
        }
        if let Some(crl) = crl {
            if !crl.is_of(&self.issuer_key_id) {
                return Err(CertificateError::WrongCrl);
            }
            // A list from slightly ahead is one of a faster clock; from far ahead it says nothing about now.
            let begun = crl.this_update() <= now.saturating_add(BACKDATE_SECONDS);
            if !begun || now > crl.next_update() {
                return Err(CertificateError::StaleCrl);
            }
            if crl.is_revoked(&self.leaf.serial) {
                return Err(CertificateError::Revoked);
            }
        }
        Ok(self.leaf.clone())
    }
}

/// Whether a certificate names this issuer and its key.
fn check_issuer(linted: &Linted, name: &PartyName, key: &SubjectKey) -> Result<(), CertificateError> {
    let named = super::encoding::read_common_name(linted.certificate.tbs_certificate().issuer());
    let same_key = linted.authority_key_id.as_deref() == Some(&key.key_id()[..]);
    if named.as_ref() == Some(name) && same_key { Ok(()) } else { Err(CertificateError::UnknownIssuer) }
}

/// The bytes that were signed and the signature. Lint has seen that the certificate has one encoding only.
fn signed_parts(linted: &Linted) -> Result<(Vec<u8>, Vec<u8>), CertificateError> {
    let to_be_signed = linted.certificate.tbs_certificate().to_der().map_err(|_| CertificateError::Signature)?;
    let signature = linted.certificate.signature().as_bytes().ok_or(CertificateError::Signature)?;
    Ok((to_be_signed, signature.to_vec()))
}

/// Verifies a chain (leaf, issuing) against a pinned root at `now` (unix seconds), for one use, with the issuer's newest list.
///
/// # Errors
/// [`CertificateError`]: form and signatures from the root down, then validity, then the list, then revocation.
///
/// Security: the list covers leaves. A stolen issuing key is answered by a new root certificate, pinned by hand.
pub fn verify_chain(
    backend: &dyn Backend,
    anchor: &TrustAnchor,
    chain: &[&[u8]],
    profile: Profile,
    now: u64,
    crl: &Crl,
) -> Result<VerifiedCertificate, CertificateError> {
    SignedChain::verify(backend, anchor, chain, profile, now)?.check(profile, now, Some(crl))
}

/// Verifies a chain as of a time in the past, without a revocation list: for evidence that is read years later.
///
/// # Errors
/// [`CertificateError`].
///
/// Security: says nothing about revocation; whoever relies on it has the standing of that time from the signed grant and the log.
pub fn verify_chain_offline(
    backend: &dyn Backend,
    anchor: &TrustAnchor,
    chain: &[&[u8]],
    profile: Profile,
    at: u64,
) -> Result<VerifiedCertificate, CertificateError> {
    SignedChain::verify(backend, anchor, chain, profile, at)?.check(profile, at, None)
}

/// Remembers chains whose signatures verified, so that the second time costs a hash; validity, use and revocation are checked
/// each time.
///
/// Bounded: the oldest of 1,024 chains goes first. Shared between threads.
#[derive(Debug, Default)]
pub struct ChainCache {
    chains: Mutex<Cached>,
}

#[derive(Debug, Default)]
struct Cached {
    by_id: BTreeMap<Digest, SignedChain>,
    order: VecDeque<Digest>,
}

impl ChainCache {
    /// As [`verify_chain`].
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn verify_chain(
        &self,
        backend: &dyn Backend,
        anchor: &TrustAnchor,
        chain: &[&[u8]],
        profile: Profile,
        now: u64,
        crl: &Crl,
    ) -> Result<VerifiedCertificate, CertificateError> {
        let [leaf, issuing] = chain else { return Err(CertificateError::ChainLength) };
        let hashes = [sha256(&[&anchor.der]), sha256(&[issuing]), sha256(&[leaf])];
        let id = sha256(&[&hashes[0].0, &hashes[1].0, &hashes[2].0]);
        // A panic elsewhere cannot leave a chain half inserted: what is in the map was verified.
        let known = self.chains.lock().unwrap_or_else(PoisonError::into_inner).by_id.get(&id).cloned();
        if let Some(known) = known {
            return known.check(profile, now, Some(crl));
        }
        let verified = SignedChain::verify(backend, anchor, chain, profile, now)?;
        let answer = verified.check(profile, now, Some(crl));
        let mut cached = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.by_id.insert(id, verified).is_none() {
            cached.order.push_back(id);
        }
        if cached.order.len() > CACHED_CHAINS
            && let Some(oldest) = cached.order.pop_front()
        {
            cached.by_id.remove(&oldest);
        }
        answer
    }
}
