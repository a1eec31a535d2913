//! What time decides: the next attempt, a review that nobody made, a case whose end did not come.

use async_trait::async_trait;
use waybill_crypto::keys::Digest;
use waybill_protocol::destination::DestinationCase;
use waybill_protocol::ids::ProofId;
use waybill_protocol::migration::{DestinationState, Effect, Recipient};
use waybill_protocol::source::Transition;
use waybill_store::{Expect, Op, Timer};

use super::{Engine, of_source};
use crate::hospital::audit::{Actor, event};
use crate::hospital::work::session_op;
use crate::party::ServiceError;
use crate::party::deadlines::Sleeper;
use crate::party::effects::case_timer;

/// How often a case past its end is looked at. Units: milliseconds.
const PAST_ITS_END_MS: u64 = 3_600_000;

#[async_trait]
impl Sleeper for Engine {
    /// A failed attempt is followed by the next; a review that nobody made in time refuses the case. Past the proof's end the authority
    /// has decided; its statement closes the case, and until it comes the case is looked at every hour.
    async fn wake(&self, case: Digest) -> Result<(), ServiceError> {
        let id = ProofId(case);
        if let Some((failed, version)) = self.destination_case(&id).await?
            && failed.state == DestinationState::AttemptFailed
        {
            return self.next_attempt(failed, version).await;
        }
        let own = match self.source_case(&id).await? {
            Some((waiting, version)) => {
                let own = waiting.own;
                if let Some(refused) = self.as_source("Refusal", own, |s| s.handle_overdue(waiting)) {
                    return self.review_overdue(refused, version).await;
                }
                own
            }
            None => match self.destination_case(&id).await? {
                Some((case, _)) => case.own,
                None => self.identities.current().keys().thumb(),
            },
        };
        tracing::info!(%case, "a case waits for the authority's statement; asking for it");
        let at = self.party.clock.now_ms().saturating_add(PAST_ITS_END_MS);
        let timer = Timer { key: case_timer(&case), at, payload: case.0.to_vec() };
        let decline = self.decline(id, own, vec![Recipient::Authority]);
        self.commit("statement-asked", &case, vec![Op::SetTimer(timer)], decline).await
    }
}

impl Engine {
    async fn next_attempt(&self, failed: DestinationCase, version: u64) -> Result<(), ServiceError> {
        // The failed session's key and chunks go before the next session's come.
        self.destroy_one_time(&failed.session.0)?;
        self.shelf.discard(&failed.session).await?;
        let ours = self.shelf.demographics(&failed.local).await?;
        let (secret, (next, effects)) =
            self.as_destination("TransferRequest", failed.own, |d| d.next_attempt(failed, &ours))?;
        self.keep_one_time(&next.session.0, &secret)?;
        let ops = vec![session_op(&next)];
        self.save_destination("next-attempt", &next, Expect::Version(version), ops, effects).await
    }

    async fn review_overdue(&self, (case, mut effects): Transition, version: u64) -> Result<(), ServiceError> {
        effects.push(Effect::Deadline(case.expires.plus(1)));
        // Nothing was redeemed, so the authority ends the case by our revocation, not by the refusal of an attempt.
        effects.extend(self.decline(case.proof, case.own, vec![Recipient::Authority]));
        let ops = self.audit(of_source(&case, Actor::System, event::REVIEW_OVERDUE).with_code(case.code));
        self.save_source("review-overdue", &case, Expect::Version(version), ops, effects).await
    }
}
