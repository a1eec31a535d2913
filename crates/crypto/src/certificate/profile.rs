//! The six profiles, and the names that certificates carry.

use std::fmt;

use thiserror::Error;

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// id-kp-serverAuth, the content bytes of its OID 1.3.6.1.5.5.7.3.1 (RFC 5280 section 4.2.1.12).
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
/// id-kp-clientAuth, 1.3.6.1.5.5.7.3.2.
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// Our arc: 2.25.307103338435463295238329393056364461259, which is the UUID e709f398-df9e-4bd7-a10f-6109646d7ccb, made for this
/// (ITU-T X.667: such arcs need no registration). Content bytes of the OID.
macro_rules! waybill_arc {
    ($last:literal) => {
        &[
            0x69, 0x83, 0xce, 0x89, 0xf9, 0xe6, 0x9b, 0xf9, 0xf2, 0xaf, 0xaf, 0xa1, 0x87, 0xd8, 0xa1, 0x96, 0xa3, 0xb5,
            0xf9, 0x4b, $last,
        ]
    };
}

/// Arc .1: the key signs protocol messages of a hospital.
const HOSPITAL_SIGNING: &[u8] = waybill_arc!(1);
/// Arc .2: the key signs migration proofs, grants and key releases of the authority.
const PROOF_SIGNING: &[u8] = waybill_arc!(2);

/// What a certificate is for. Everything else about it follows from this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// The offline root: P-384, self-signed, signs issuing certificates only (path length 1).
    Root,
    /// The authority's issuing key: P-256, signs leaves and revocation lists (path length 0).
    Issuing,
    /// The authority's proof key: private, critical extended usage; never used for TLS or issuing.
    ProofSigning,
    /// A hospital's TLS key, as client and server.
    HospitalTls,
    /// A hospital's message key: private, critical extended usage.
    HospitalSigning,
    /// The TLS key of the authority, a relay or a witness; also names the local machine, which tells it from a hospital's.
    ServiceTls,
}

impl Profile {
    /// The longest time from the making of a certificate to its end.
    ///
    /// Units: seconds.
    #[must_use]
    pub const fn max_lifetime_seconds(self) -> u64 {
        match self {
            Self::Root => 20 * 365 * DAY_SECONDS,
            Self::Issuing => 5 * 365 * DAY_SECONDS,
            Self::ProofSigning | Self::ServiceTls => 90 * DAY_SECONDS,
            Self::HospitalTls | Self::HospitalSigning => 30 * DAY_SECONDS,
        }
    }

    /// Whether the certificate signs others, and how many intermediate ones may follow it.
    pub(super) const fn path_length(self) -> Option<u8> {
        match self {
            Self::Root => Some(1),
            Self::Issuing => Some(0),
            Self::ProofSigning | Self::HospitalTls | Self::HospitalSigning | Self::ServiceTls => None,
        }
    }

    /// The extended key usages, in order, and whether the extension is critical.
    pub(super) const fn extended_usage(self) -> Option<(&'static [&'static [u8]], bool)> {
        match self {
            Self::Root | Self::Issuing => None,
            Self::HospitalTls | Self::ServiceTls => Some((&[SERVER_AUTH, CLIENT_AUTH], false)),
            Self::HospitalSigning => Some((&[HOSPITAL_SIGNING], true)),
            Self::ProofSigning => Some((&[PROOF_SIGNING], true)),
        }
    }

    /// Whether it is a TLS profile: its alternative names are DNS names.
    #[must_use]
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::HospitalTls | Self::ServiceTls)
    }

    /// The URI that names the holder of a signing profile, before the party's name.
    pub(super) const fn uri_prefix(self) -> Option<&'static str> {
        match self {
            Self::HospitalSigning => Some("waybill:hospital:"),
            Self::ProofSigning => Some("waybill:authority:"),
            Self::Root | Self::Issuing | Self::HospitalTls | Self::ServiceTls => None,
        }
    }

    /// The profile's name in messages to people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Issuing => "issuing",
            Self::ProofSigning => "proof signing",
            Self::HospitalTls => "hospital TLS",
            Self::HospitalSigning => "hospital signing",
            Self::ServiceTls => "service TLS",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no party's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a name is 1 to 63 characters of a-z, 0-9, '-' and '.', beginning with a letter or digit")]
pub struct PartyNameError;

/// The registered name of a hospital, an authority, a relay or a witness, as certificates carry it.
///
/// Bytes: 1 to 63 ASCII characters `[a-z0-9][a-z0-9.-]*`; for TLS profiles a DNS name besides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartyName(String);

impl PartyName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`PartyNameError`] when the text has another shape.
    pub fn parse(text: &str) -> Result<Self, PartyNameError> {
        let plain = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let first = text.as_bytes().first().is_some_and(plain);
        let rest = text.bytes().all(|c| plain(&c) || c == b'-' || c == b'.');
        if first && rest && text.len() <= 63 { Ok(Self(text.to_owned())) } else { Err(PartyNameError) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PartyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
