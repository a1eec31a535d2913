//! A patient of the demo: a wallet, its courier, and the two registrations.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use waybill_crypto::backend::Backend;
use waybill_crypto::metered::{Meter, Metered, scope};
use waybill_crypto::native::Native;
use waybill_crypto::passphrase::Cost;
use waybill_protocol::wire::Kind;
use waybill_server::costs::thread_cpu_ns;
use waybill_wallet::{Received, Settings, Wallet};

use super::network::Network;
use crate::courier::{Courier, now};
use crate::failure::Failure;
use crate::hospital;

/// Longest wait for an answer to a single question.
pub const ANSWER: Duration = Duration::from_secs(120);

/// A patient with a wallet.
pub struct Person {
    /// FHIR id at A.
    pub id: String,
    /// Local id at B.
    pub destination_id: String,
    /// The wallet.
    pub wallet: Wallet,
    /// What carries its parcels.
    pub courier: Courier,
    /// What its cryptography costs.
    pub meter: Meter,
}

impl Person {
    /// Makes a wallet that trusts the network's authority.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn new(network: &Network, file: &Path, id: &str) -> Result<Self, Failure> {
        let meter = Meter::new(thread_cpu_ns);
        let backend: Arc<dyn Backend> = Arc::new(Metered::new(Native, meter.clone()));
        let relay =
            network.relay_host().parse().map_err(|e| Failure::failed("the relay's host is none").caused_by(e))?;
        // Nobody opens this wallet again, so nobody needs to know its passphrase.
        let mut passphrase = [0; 32];
        Native.random(&mut passphrase);
        let settings = Settings { relay, trust: Some(network.trust()?), cost: Cost::RECOMMENDED };
        let wallet = Wallet::create(backend, file, &hex::encode(passphrase), settings);
        let mut wallet = wallet.map_err(|e| Failure::environment("the wallet cannot be made", e))?;
        let courier = Courier::new(&network.root(), network.authority_url())?;
        courier.renew_trust(&mut wallet).await?;
        Ok(Self { id: id.to_owned(), destination_id: String::new(), wallet, courier, meter })
    }

    /// Registers at a hospital (`hospital-a`, `hospital-b`) as its local patient, with a code handed over in person.
    ///
    /// # Errors
    /// [`Failure`] also when the hospital refuses.
    pub async fn register(&mut self, network: &Network, hospital: &str, local: &str) -> Result<(), Failure> {
        let enrolment = hospital::enrolment_code(&network.admin(hospital), local, "self").await?;
        let enrolled = scope("Registration", || self.wallet.enrol(now(), &enrolment));
        enrolled.map_err(|e| Failure::failed("the wallet refuses to register").caused_by(e))?;
        match self.courier.next(&mut self.wallet, ANSWER).await? {
            Received::Registered { .. } => Ok(()),
            Received::RegistrationRefused { code, .. } => {
                Err(Failure::failed(format!("{hospital} refuses to register: {}", code.sentence())))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// The parcel of the first message of a kind that the wallet posted after an index.
    #[must_use]
    pub fn posted(&self, kind: Kind, after: usize) -> Option<&[u8]> {
        let carried = self.courier.carried().get(after..).unwrap_or_default();
        carried.iter().find(|c| c.kind == kind && c.to.is_some()).map(|c| c.parcel.as_slice())
    }
}

/// An answer that does not belong here.
#[must_use]
pub fn unexpected(received: &Received) -> Failure {
    Failure::failed(format!("the wallet received something unexpected: {received:?}"))
}
