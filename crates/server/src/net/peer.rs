//! Who is at the other end of a connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use rustls_pki_types::CertificateDer;

/// The DNS name a verified client certificate was issued to: a hospital's or a service's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartyName(String);

impl PartyName {
    /// Reads the party's name from a leaf certificate **that TLS has already verified**: its first DNS name that is not
    /// `localhost`, in lower case.
    ///
    /// Security: meaningless for a certificate nobody verified; called only on what a handshake has accepted.
    pub(crate) fn from_verified_leaf(leaf: &CertificateDer<'_>) -> Option<Self> {
        let certificate = webpki::EndEntityCert::try_from(leaf).ok()?;
        let name = certificate.valid_dns_names().find(|name| *name != "localhost")?;
        Some(Self(name.to_ascii_lowercase()))
    }

    /// A name for tests and for a process that speaks for itself.
    pub fn own(name: &str) -> Self {
        Self(name.to_ascii_lowercase())
    }

    /// The name, lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PartyName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A party that proved its certificate in the TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// Its name.
    pub name: PartyName,
    /// The verified chain, leaf first, for callers that check more than TLS does.
    pub chain: Vec<CertificateDer<'static>>,
}

/// What a handler may know of its caller; a request extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where the connection comes from; `None` on the local admin socket.
    pub address: Option<SocketAddr>,
    /// Who it is, when it showed a certificate.
    pub party: Option<Party>,
    /// Which local user it is, on the local admin socket, as the kernel says it.
    pub user: Option<u32>,
}

impl Peer {
    /// The address requests are rated by.
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip())
    }

    /// The verified name, when there is one.
    pub fn name(&self) -> Option<&PartyName> {
        self.party.as_ref().map(|party| &party.name)
    }
}
