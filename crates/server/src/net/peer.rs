//! Who is at the other end of a connection.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

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

/// Who a request or a session is counted against.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// This machine's own admin socket.
    Local,
    /// A party that proved its certificate.
    Party(PartyName),
    /// Somebody without one, as [`network_of`] sees it.
    Network(IpAddr),
}

/// The address that stands for everybody who can easily change to `address`: an IPv4 address itself, also when it is written as an
/// IPv6 one, and the /64 of an IPv6 address, which one subscriber holds whole.
#[must_use]
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
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
    /// Who a request is counted against.
    pub fn origin(&self) -> Origin {
        match (self.name(), self.address) {
            (Some(name), _) => Origin::Party(name.clone()),
            (None, Some(address)) => Origin::Network(network_of(address.ip())),
            (None, None) => Origin::Local,
        }
    }

    /// The verified name, when there is one.
    pub fn name(&self) -> Option<&PartyName> {
        self.party.as_ref().map(|party| &party.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_subscriber_is_one_network() {
        let of = |text: &str| network_of(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("2001:db8:1:2:ffff:ffff:ffff:ffff"), "2001:db8:1:2::");
        assert_ne!(of("2001:db8:1:3::1"), of("2001:db8:1:2::1"));
        let peer =
            |text: &str| Peer { address: Some(SocketAddr::new(text.parse().unwrap(), 1)), party: None, user: None };
        assert_eq!(peer("2001:db8::1").origin(), peer("2001:db8::2").origin(), "rates and sessions count them as one");
    }
}
