//! Contact cards: what the wallet pinned of a hospital, as text on paper.
//!
//! A recovered wallet has its keys back and knows no hospital. A card brings one back without asking anybody: the hospital's keys and
//! mailbox, as they were pinned when the patient stood at its counter.
//!
//! Security: a card is signed by the wallet's own consent key at that hospital, so that nobody can slip another hospital's keys
//! among the papers. It names no patient, but tells where its owner is treated: it belongs beside the recovery code.

use minicbor::{Decode, Encode};
use thiserror::Error;
use waybill_protocol::patient::Contact;
use waybill_protocol::signed::{Message, Signed, Unverified};

use crate::error::WalletError;
use crate::state::MAX_CONTACTS;
use crate::text_code::{TextCode, TextError};
use crate::wallet::Wallet;

/// How every card begins; the digit is the version.
pub const CARD_PREFIX: &str = "WAYBILL-CARD1:";

const CODE: TextCode = TextCode { prefix: CARD_PREFIX, family: "WAYBILL-CARD", domain: b"waybill/1 contact card" };

/// Why a text is not a card of this wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CardError {
    /// Does not begin with `WAYBILL-CARD1:`.
    #[error("this is not a contact card: one begins with {CARD_PREFIX}")]
    Prefix,
    /// A card of another version.
    #[error("this contact card is of another version; update the wallet")]
    Version,
    /// Longer than any card.
    #[error("the text is too long for a contact card")]
    TooLong,
    /// A character that no card contains.
    #[error("character {position} does not belong into a contact card")]
    Character {
        /// From 1, spaces not counted.
        position: usize,
    },
    /// The checksum fails.
    #[error("the contact card is incomplete or mistyped; scan it again")]
    Checksum,
    /// The checksum holds and the content is no card.
    #[error("the contact card is malformed; enrol at the hospital again, in person")]
    Malformed,
    /// Signed by another wallet, or by nobody.
    #[error("this contact card was not made by this wallet; do not use it, and enrol at the hospital again, in person")]
    OtherWallet,
}

impl From<TextError> for CardError {
    fn from(error: TextError) -> Self {
        match error {
            TextError::Prefix => Self::Prefix,
            TextError::Version => Self::Version,
            TextError::TooLong => Self::TooLong,
            TextError::Character(position) => Self::Character { position },
            TextError::Checksum => Self::Checksum,
        }
    }
}

/// What is signed.
#[derive(Encode, Decode)]
#[cbor(array)]
struct ContactCard {
    #[n(0)]
    contact: Contact,
}

impl Message for ContactCard {
    const TYP: &'static str = "waybill-contact-card";
}

impl Wallet {
    /// The card of a hospital, as text; [`crate::qr_terminal`] makes a picture of it.
    #[must_use]
    pub fn card(&self, contact: &Contact) -> String {
        let key = self.state.root.consent_key(contact.hospital.as_str(), contact.epoch);
        let signed = Signed::sign(&*self.backend, &key, ContactCard { contact: contact.clone() });
        CODE.encode(signed.bytes())
    }

    /// Takes a hospital back from its card, in any case and with any spaces. A hospital that is known already stays as it is known:
    /// the card may be older. Gives the hospital, and whether it is new.
    ///
    /// # Errors
    /// [`WalletError::Card`], [`WalletError::TooMany`], [`crate::FileError`].
    pub fn accept_card(&mut self, text: &str) -> Result<(Contact, bool), WalletError> {
        let contact = self.read_card(text)?;
        if self.state.contacts.iter().any(|known| known.hospital == contact.hospital) {
            return Ok((contact, false));
        }
        if self.state.contacts.len() >= MAX_CONTACTS {
            return Err(WalletError::TooMany { what: "hospitals", limit: MAX_CONTACTS });
        }
        let added = contact.clone();
        self.commit(|state| {
            let place = state.contacts.partition_point(|known| known.hospital < added.hospital);
            state.contacts.insert(place, added);
        })?;
        Ok((contact, true))
    }

    fn read_card(&self, text: &str) -> Result<Contact, CardError> {
        let content = CODE.decode(text)?;
        let unverified = Unverified::<ContactCard>::parse(&content).map_err(|_| CardError::Malformed)?;
        // Whose card it says it is decides under which key of ours it must be signed.
        let said = &unverified.peek().contact;
        let key = self.state.root.consent_key(said.hospital.as_str(), said.epoch);
        let card = unverified.verify(&*self.backend, key.public()).map_err(|_| CardError::OtherWallet)?;
        let contact = card.into_message().contact;
        let plausible = contact.mailbox.starts_with("https://") && contact.mailbox.len() <= 512;
        if plausible { Ok(contact) } else { Err(CardError::Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::world::{PASSPHRASE, World, a, b};
    use crate::tests::{NOW, registered, wish};
    use std::sync::Arc;
    use waybill_crypto::portable::Portable;

    /// A wallet made again from the recovery code of another.
    fn recovered(world: &World, code: &crate::RecoveryCode) -> Wallet {
        let path = world.folder.path().join("recovered");
        let backend = Arc::new(Portable::from_seed([77; 32]));
        Wallet::recover(backend, &path, PASSPHRASE, world.settings(), code).unwrap()
    }

    #[test]
    fn cards_bring_the_hospitals_of_a_recovered_wallet_back() {
        let mut world = World::new();
        let wallet = registered(&mut world);
        let cards: Vec<String> = wallet.contacts().iter().map(|contact| wallet.card(contact)).collect();
        let known = wallet.contacts().to_vec();
        let mut again = recovered(&world, &wallet.recovery_code());
        for card in &cards {
            let typed = format!("  {}\n{}", card[..20].to_lowercase(), &card[20..]);
            assert!(again.accept_card(&typed).unwrap().1);
            assert!(!again.accept_card(card).unwrap().1, "a card is taken once");
        }
        assert_eq!(again.contacts(), known);
        again.renew_trust(NOW, &world.crl, &world.statement).unwrap();
        again.delegate(NOW, &a(), &b(), wish()).unwrap();
        assert!(crate::qr_terminal(&cards[0]).is_ok(), "a card fits a QR code");
    }

    #[test]
    fn a_card_of_another_wallet_or_with_other_keys_is_refused() {
        let mut world = World::new();
        let wallet = registered(&mut world);
        let card = wallet.card(&wallet.contacts()[0]);
        let stranger = crate::RecoveryCode::new(waybill_crypto::pseudonym::RootSecret::from_bytes([5; 32]));
        let mut other = recovered(&world, &stranger);
        let refused = other.accept_card(&card).unwrap_err();
        assert!(matches!(refused, WalletError::Card(CardError::OtherWallet)), "{refused}");
        // A card whose keys were replaced by an impostor's, with a right checksum.
        let mut content = CODE.decode(&card).unwrap();
        // The key that signs it signs consents and logins too: a card is neither.
        assert!(Unverified::<waybill_protocol::messages::Consent>::parse(&content).is_err());
        assert!(Unverified::<waybill_protocol::messages::LoginRequest>::parse(&content).is_err());
        let key = wallet.contacts()[0].keys.hpke.0;
        let place = content.windows(32).position(|window| window == key).unwrap();
        content[place] ^= 1;
        let mut again = recovered_beside(&world, &wallet.recovery_code());
        let refused = again.accept_card(&CODE.encode(&content)).unwrap_err();
        assert!(matches!(refused, WalletError::Card(CardError::OtherWallet)), "{refused}");
        assert!(again.contacts().is_empty());
        for (text, error) in [
            ("HELLO", CardError::Prefix),
            ("WAYBILL-CARD2:AAAA", CardError::Version),
            (&card[..card.len() - 1], CardError::Checksum),
            (&card.replace("1:", "1:1"), CardError::Character { position: 15 }),
            (&CODE.encode(b"x"), CardError::Malformed),
        ] {
            let refused = again.accept_card(text).unwrap_err();
            assert!(matches!(refused, WalletError::Card(found) if found == error), "{refused}");
        }
    }

    fn recovered_beside(world: &World, code: &crate::RecoveryCode) -> Wallet {
        let path = world.folder.path().join("recovered-again");
        let backend = Arc::new(Portable::from_seed([78; 32]));
        Wallet::recover(backend, &path, PASSPHRASE, world.settings(), code).unwrap()
    }
}
