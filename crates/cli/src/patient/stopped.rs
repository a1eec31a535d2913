//! Who stopped a case that this wallet did not stop, as far as its hospitals say so themselves.

use std::time::{Duration, Instant};

use waybill_protocol::messages::Purpose;
use waybill_protocol::rejection::Code;
use waybill_wallet::{CaseNumber, Notice, Party, Received};

use super::session::Session;
use crate::courier::now;
use crate::failure::Failure;

/// How long the hospitals are asked.
const BRIEFLY: Duration = Duration::from_secs(8);

/// Asks both hospitals of a closed case how it stands with them, where its signed end does not say who stopped it and why: the
/// authority's statement names the message that caused it, not its sender. What a hospital says is kept in the wallet.
///
/// # Errors
/// [`Failure`] when the wallet's file cannot be kept; a hospital that does not answer is no failure.
pub async fn ask(session: &mut Session, number: CaseNumber) -> Result<(), Failure> {
    let Some(closed) = session.wallet.closed().iter().find(|case| case.number == number) else { return Ok(()) };
    let (true, Some(proof)) = (closed.is_stopped_by_somebody(), closed.proof) else { return Ok(()) };
    let (source, destination) = (closed.source.hospital.clone(), closed.destination.hospital.clone());
    let mut open = 0;
    for hospital in [source.clone(), destination] {
        // A wallet whose key was struck out there gets no answer, and one that is not registered any more cannot ask.
        open += usize::from(session.wallet.ask(now(), &hospital, Purpose::Watch { proof }).is_ok());
    }
    let deadline = Instant::now() + BRIEFLY;
    while open > 0 {
        let left = deadline.saturating_duration_since(Instant::now());
        let said = session.wait(left, |received| match received {
            Received::Watched { hospital, proof: of, code, .. } if *of == proof => Some((hospital.clone(), *code)),
            Received::LoginRefused { hospital, code, about: Some(of), .. } if *of == proof => {
                Some((hospital.clone(), Some(*code).filter(|code| *code == Code::UnknownCase)))
            }
            _ => None,
        });
        let Some((hospital, code)) = said.await? else { break };
        open -= 1;
        // The destination passes on what the source says; only the source's own word tells the two apart.
        if let Some(code) = code.filter(|code| hospital == source || *code == Code::StoppedByStaff) {
            let notice = Notice { from: Party::Hospital(hospital), code, time: now() };
            session.wallet.note_end(number, notice).map_err(super::session::wallet_failure)?;
        }
    }
    Ok(())
}
