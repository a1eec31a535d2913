//! Key compromise impersonation: whoever stole a receiver's lasting keys gives it the messages of others, signed with those keys.
//!
//! The receiver looks for the signer's key, never for a secret that both have, so that its own keys are worth nothing here
//! (`formal/proverif/kci.pv`).

use minicbor::bytes::ByteVec;
use waybill_crypto::backend::Backend as _;
use waybill_crypto::keys::SigningKey;
use waybill_protocol::rejection::Code;
use waybill_protocol::signed::{Message, Signed, SignedBytes};

use crate::bench::{Bench, keys_of};
use crate::common::World;
use crate::table::Table;
use crate::{Delivery, Expected, assembled, payload};

/// Every key that a receiver signs with.
fn keys_of_receiver(world: &World, receiver: &str) -> Vec<SigningKey> {
    let signers: &[&str] = match receiver {
        "patient" => {
            &["consent key at the source", "consent key at the destination", "delegation key", "revocation key"]
        }
        hospital_or_authority => &[hospital_or_authority],
    };
    signers.iter().flat_map(|signer| keys_of(world, signer)).collect()
}

/// The message under the name of its signer's key, and a signature that is right under another: RFC 9052, section 4.4, by hand.
fn under_the_signers_name<M: Message>(world: &World, honest: &SignedBytes<M>, key: &SigningKey) -> SignedBytes<M> {
    let (protected, payload, _) = payload(honest.as_bytes());
    let said = (
        "Signature1",
        ByteVec::from(protected.clone()),
        ByteVec::from(b"waybill/1".to_vec()),
        ByteVec::from(payload.clone()),
    );
    let signature = world.network.backend.sign(key, &minicbor::to_vec(said).unwrap());
    assembled(protected, payload, signature.0.to_vec())
}

impl<M: Message + Clone> Delivery<M> {
    /// Gives the receiver the honest message under each of its own keys: under the signer's name, and under the key's own. What a
    /// receiver may itself say to others is left out: there its keys are the signer's. The codes of its refusals, one for each key.
    pub fn signed_by_its_receiver(&self, world: &mut World, bench: &Bench, table: &Table) -> Vec<Code> {
        let signers = &table.message(self.message).signer;
        if signers.iter().any(|signer| signer == self.to) {
            return Vec::new();
        }
        let honest = (self.take)(world, &bench.ours);
        let again = under_the_signers_name(world, &honest, &self.key(world, &honest));
        (self.deliver)(world, bench, again).unwrap_or_else(|code| panic!("{}, signed by hand: {code}", self.message));
        let keys = keys_of_receiver(world, self.to);
        for key in &keys {
            let what = format!("{} of the {}, signed by the {} who hears it", self.message, self.signer, self.to);
            let named = under_the_signers_name(world, &honest, key);
            assert_ne!(honest.parse().unwrap().kid(), key.public().kid(), "{what}");
            self.expect(world, bench, &what, named, Expected::Refused(self.forged));
            let message = honest.parse().unwrap().peek().clone();
            let own = SignedBytes::from(&Signed::sign(&world.network.backend, key, message));
            let what = format!("{what}, in its own name");
            self.expect(world, bench, &what, own, Expected::Refused(self.forged));
        }
        vec![self.forged; keys.len()]
    }
}
