//! Reply mailboxes: a fresh key for every exchange and every case, so that no host sees one patient twice.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use thiserror::Error;
use waybill_crypto::backend::Backend;
use waybill_crypto::digest::sha256;
use waybill_crypto::keys::{Digest, SigningKey, VerifyingKey};
use zeroize::Zeroize;

/// A text is not a relay's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a relay is given as host or host:port, in lower case, without https:// and without a path")]
pub struct RelayError;

/// The relay that keeps this wallet's reply mailboxes: `host[:port]`.
///
/// Bytes: at most 255 of `a-z 0-9 . - : [ ]`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct RelayHost(#[cbor(n(0), decode_with = "decode_host")] String);

fn decode_host<'b, C>(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<String, minicbor::decode::Error> {
    let host: RelayHost = d.str()?.parse().map_err(|_| minicbor::decode::Error::message("relay host"))?;
    Ok(host.0)
}

impl FromStr for RelayHost {
    type Err = RelayError;

    fn from_str(text: &str) -> Result<Self, RelayError> {
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-:[]".contains(&b);
        let plausible =
            (1..=255).contains(&text.len()) && text.bytes().all(known) && !text.starts_with(['.', ':', '-']);
        if plausible { Ok(Self(text.to_owned())) } else { Err(RelayError) }
    }
}

impl fmt::Display for RelayHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a mailbox: SHA-256 of its key's 65-byte SEC1 form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct MailboxName(#[n(0)] pub Digest);

impl MailboxName {
    /// The mailbox of a key.
    #[must_use]
    pub fn of(key: &VerifyingKey) -> Self {
        Self(sha256(&[key.as_sec1()]))
    }
}

impl fmt::Display for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A mailbox to be read: where it is, and the key that opens it.
#[derive(Debug, Clone)]
pub struct Watch {
    /// Its name, by which [`crate::Wallet::receive`] is told where a letter came from.
    pub mailbox: MailboxName,
    /// `https://host[:port]/mailbox/<hex>`.
    pub address: String,
    /// Proves to the host that it is ours.
    pub key: SigningKey,
}

/// A reply mailbox of ours, as the wallet file keeps it until nothing more is expected there.
#[derive(Clone, Encode, Decode)]
#[cbor(array)]
pub(crate) struct ReplyMailbox {
    #[cbor(n(0), with = "minicbor::bytes")]
    scalar: [u8; 32],
    #[n(1)]
    name: MailboxName,
    #[n(2)]
    relay: RelayHost,
}

impl Drop for ReplyMailbox {
    fn drop(&mut self) {
        self.scalar.zeroize();
    }
}

impl fmt::Debug for ReplyMailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplyMailbox({})", self.name)
    }
}

impl ReplyMailbox {
    /// A mailbox nobody has seen yet.
    pub(crate) fn fresh(backend: &dyn Backend, relay: &RelayHost) -> Self {
        let key = backend.generate_signing_key();
        Self { scalar: *key.to_scalar_bytes(), name: MailboxName::of(key.public()), relay: relay.clone() }
    }

    pub(crate) fn name(&self) -> MailboxName {
        self.name
    }

    pub(crate) fn address(&self) -> String {
        format!("https://{}/mailbox/{}", self.relay, self.name)
    }

    /// `None` only when the file holds something else than a key there.
    pub(crate) fn watch(&self) -> Option<Watch> {
        let key = SigningKey::from_scalar_bytes(&self.scalar).ok()?;
        Some(Watch { mailbox: self.name, address: self.address(), key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_crypto::portable::Portable;

    #[test]
    fn relays_are_hosts_and_nothing_else() {
        for good in ["relay.example", "localhost:8443", "[::1]:8443", "127.0.0.1"] {
            assert_eq!(good.parse::<RelayHost>().unwrap().to_string(), good);
        }
        for bad in
            ["", "https://relay.example", "relay.example/x", "user@relay", "Relay", "a b", ":80", &"a".repeat(256)]
        {
            assert_eq!(bad.parse::<RelayHost>(), Err(RelayError), "{bad}");
        }
        let bytes = minicbor::to_vec("https://relay").unwrap();
        assert!(minicbor::decode::<RelayHost>(&bytes).is_err());
    }

    #[test]
    fn a_mailbox_is_named_by_its_key_and_shows_no_secret() {
        let backend = Portable::from_seed([1; 32]);
        let mailbox = ReplyMailbox::fresh(&backend, &"relay.example".parse().unwrap());
        let watch = mailbox.watch().unwrap();
        assert_eq!(watch.mailbox, MailboxName::of(watch.key.public()));
        assert_eq!(watch.address, format!("https://relay.example/mailbox/{}", watch.mailbox));
        let secret = hex::encode(*watch.key.to_scalar_bytes());
        assert!(!format!("{mailbox:?} {watch:?}").contains(&secret[..16]));
        let other = ReplyMailbox::fresh(&backend, &"relay.example".parse().unwrap());
        assert_ne!(mailbox.name(), other.name());
        let again: ReplyMailbox = minicbor::decode(&minicbor::to_vec(&mailbox).unwrap()).unwrap();
        assert_eq!(again.watch().unwrap().key.to_scalar_bytes(), watch.key.to_scalar_bytes());
    }
}
