//! Turns what a role asks for into operations of one store batch.

use waybill_crypto::keys::Digest;
use waybill_protocol::log::leaf_entry;
use waybill_protocol::migration::{Awaits, Effect, Leaf, Post, Recipient};
use waybill_protocol::wire::to_cbor;
use waybill_store::{Key, Op, OutboxItem, Timer};

use super::{AddressBook, ServiceError};

/// A parcel nobody answers is posted again until this much time has passed. Units: milliseconds.
pub const PATIENCE_MS: u64 = 30 * 86_400 * 1000;
/// The same for a patient's mailbox, whose address comes from its owner and may lead nowhere. Units: milliseconds.
const PATIENT_PATIENCE_MS: u64 = 86_400 * 1000;

/// The timer of a case.
#[must_use]
pub fn case_timer(case: &Digest) -> Key {
    Key::build().text("case").fixed(&case.0).done()
}

/// The outbox's name for an awaited answer.
#[must_use]
pub fn reply_key(awaits: &Awaits) -> Vec<u8> {
    to_cbor(awaits)
}

/// The operations that carry out a role's effects.
///
/// A recipient without an address is skipped with a warning: a patient's mailbox at an unknown relay must not stop the case.
///
/// # Errors
/// [`ServiceError`] when the address book cannot be asked.
pub async fn operations(
    case: &Digest,
    effects: Vec<Effect>,
    book: &dyn AddressBook,
    now_ms: u64,
) -> Result<Vec<Op>, ServiceError> {
    let mut ops = Vec::with_capacity(effects.len());
    for effect in effects {
        match effect {
            Effect::Post(post) => ops.extend(enqueue(post, book, now_ms).await?),
            Effect::Settle(awaits) => ops.push(Op::Settle { reply_key: reply_key(&awaits) }),
            Effect::Log(leaf) => ops.push(append(&leaf)),
            Effect::Deadline(at) => {
                let at = at.0.saturating_mul(1000).min(i64::MAX as u64);
                ops.push(Op::SetTimer(Timer { key: case_timer(case), at, payload: case.0.to_vec() }));
            }
            Effect::NoDeadline => ops.push(Op::ClearTimer { key: case_timer(case) }),
        }
    }
    Ok(ops)
}

/// The outbox item of a parcel, if its recipient can be reached.
///
/// # Errors
/// As [`operations`].
pub async fn enqueue(post: Post, book: &dyn AddressBook, now_ms: u64) -> Result<Option<Op>, ServiceError> {
    let is_patient = matches!(post.to, Recipient::Mailbox(_));
    let to = match book.mailbox(&post.to).await? {
        Some(to) => to,
        None if is_patient => {
            tracing::warn!("a parcel was not sent: its mailbox is at no relay that is known here");
            return Ok(None);
        }
        None => {
            return Err(ServiceError::unavailable(
                "the recipient's mailbox",
                std::io::Error::from(std::io::ErrorKind::NotFound),
            ));
        }
    };
    let patience = if is_patient { PATIENT_PATIENCE_MS } else { PATIENCE_MS };
    let kind = post.parcel.get(2).map_or_else(|| "parcel".to_owned(), |kind| format!("kind-{kind}"));
    Ok(Some(Op::Enqueue(OutboxItem {
        to,
        settle_on_delivery: post.awaits.is_none(),
        reply_key: post.awaits.as_ref().map(reply_key).unwrap_or_default(),
        body: post.parcel,
        not_before: now_ms,
        deadline: now_ms.saturating_add(patience),
        kind,
        blob: None,
    })))
}

fn append(leaf: &Leaf) -> Op {
    let entry = leaf_entry(leaf.kind, &leaf.message.0, &leaf.nonce.0);
    Op::AppendLeaf { entry, note: to_cbor(leaf) }
}
