//! The keys a hospital answers under: the current ones, and those that were replaced but that patients still pin.

use std::sync::{Arc, RwLock};

use waybill_crypto::keys::Thumb;
use waybill_protocol::messages::Chain;
use waybill_protocol::registrar::HospitalIdentity;

/// A hospital's identities, the current one first; replaced as a whole while the server runs.
///
/// Security: a case goes on under the keys that its patient pinned, so that a change of keys in its midst changes nothing for it.
#[derive(Clone)]
pub struct Identities(Arc<RwLock<Vec<Arc<HospitalIdentity>>>>);

impl Identities {
    /// The current identity and the replaced ones, newest first.
    #[must_use]
    pub fn new(current: HospitalIdentity, replaced: Vec<HospitalIdentity>) -> Self {
        let all = std::iter::once(current).chain(replaced).map(Arc::new).collect();
        Self(Arc::new(RwLock::new(all)))
    }

    fn list(&self) -> Vec<Arc<HospitalIdentity>> {
        self.0.read().expect("nobody panics while holding the identities").clone()
    }

    /// What everything new is signed under.
    #[must_use]
    pub fn current(&self) -> Arc<HospitalIdentity> {
        self.list().swap_remove(0)
    }

    /// Every identity that may still be pinned, the current one first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<HospitalIdentity>> {
        self.list()
    }

    /// The identity of these keys. For keys that were removed altogether the current one: what it signs in such a case is refused
    /// by the other side, as it should be.
    #[must_use]
    pub fn of(&self, keys: &Thumb) -> Arc<HospitalIdentity> {
        let list = self.list();
        list.iter().find(|identity| &identity.keys().thumb() == keys).unwrap_or(&list[0]).clone()
    }

    /// Puts a renewed certificate chain in place for the keys it certifies.
    pub fn renew_chain(&self, keys: &Thumb, chain: &Chain) {
        let mut list = self.0.write().expect("nobody panics while holding the identities");
        for identity in list.iter_mut().filter(|identity| &identity.keys().thumb() == keys) {
            *identity = Arc::new(HospitalIdentity {
                id: identity.id.clone(),
                signing: identity.signing.clone(),
                hpke: identity.hpke.clone(),
                chain: chain.clone(),
                change: identity.change.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waybill_crypto::backend::Backend as _;
    use waybill_crypto::native::Native;
    use waybill_protocol::ids::HospitalId;

    fn identity() -> HospitalIdentity {
        HospitalIdentity {
            id: HospitalId::parse("hospital-a.example").unwrap(),
            signing: Native.generate_signing_key(),
            hpke: Native.generate_hpke_key(),
            chain: Chain::default(),
            change: None,
        }
    }

    #[test]
    fn old_keys_are_found_and_a_renewed_chain_goes_to_its_own_keys() {
        let (current, old) = (identity(), identity());
        let (current_thumb, old_thumb) = (current.keys().thumb(), old.keys().thumb());
        let identities = Identities::new(current, vec![old]);
        assert_eq!(identities.current().keys().thumb(), current_thumb);
        assert_eq!(identities.of(&old_thumb).keys().thumb(), old_thumb);
        assert_eq!(identities.of(&identity().keys().thumb()).keys().thumb(), current_thumb);
        let chain = Chain::new([vec![1]]);
        identities.renew_chain(&old_thumb, &chain);
        assert_eq!(identities.of(&old_thumb).chain, chain);
        assert_eq!(identities.current().chain, Chain::default());
    }
}
