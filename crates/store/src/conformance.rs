//! The suite that every back end must pass; a check that fails panics and says what was broken.

mod objects;
mod outbox;
mod rows;

pub use objects::objects;

use crate::{Batch, CommitError, Expect, Key, Space, Store, Versioned};

/// Runs every check of [`Store`], each on a store that `fresh` makes empty.
pub async fn store<S: Store>(fresh: impl AsyncFn() -> S) {
    rows::puts_count_versions(&fresh().await).await;
    rows::expectations_are_kept(&fresh().await).await;
    rows::a_failed_batch_leaves_nothing(&fresh().await).await;
    rows::a_batch_sees_its_own_effects(&fresh().await).await;
    rows::many_inserts_name_the_one_that_exists(&fresh().await).await;
    rows::scans_are_ordered_and_paged(&fresh().await).await;
    rows::odd_keys_and_values_survive(&fresh().await).await;
    rows::prefixes_are_deleted_alone(&fresh().await).await;
    rows::promotion_moves_once(&fresh().await).await;
    rows::copies_stay(&fresh().await).await;
    rows::one_of_many_writers_wins(&fresh().await).await;
    rows::bounds_are_refused(&fresh().await).await;
    rows::spaces_are_separate(&fresh().await).await;
    outbox::items_are_resent_until_settled(&fresh().await).await;
    outbox::enqueuing_again_changes_nothing(&fresh().await).await;
    outbox::delivery_settles_only_where_it_says_so(&fresh().await).await;
    outbox::deadlines_end_attempts(&fresh().await).await;
    outbox::the_longest_due_comes_first(&fresh().await).await;
    outbox::no_host_hides_another(&fresh().await).await;
    outbox::timers_fire_until_cleared(&fresh().await).await;
    outbox::leaves_have_no_gaps(&fresh().await).await;
    outbox::changes_are_signalled(&fresh().await).await;
}

fn key(name: &str) -> Key {
    Key::build().text(name).done()
}

async fn commit(store: &impl Store, batch: Batch) -> crate::Committed {
    store.commit(batch).await.expect("the batch is committed")
}

async fn put(store: &impl Store, space: Space, key: &Key, value: &[u8]) {
    commit(store, Batch::new("put").put(space, key.clone(), value.to_vec(), Expect::Any)).await;
}

async fn load(store: &impl Store, space: Space, key: &Key) -> Option<(u64, Vec<u8>)> {
    let row = store.load(space, key).await.expect("the row is read");
    row.map(|Versioned { version, value }| (version, value))
}

async fn values(store: &impl Store, space: Space, prefix: &Key) -> Vec<(Key, Vec<u8>)> {
    let rows = store.scan(space, prefix, None, usize::MAX).await.expect("the rows are read");
    rows.into_iter().map(|(key, row)| (key, row.value)).collect()
}

#[track_caller]
fn assert_conflict(outcome: Result<crate::Committed, CommitError>, space: Space, key: &Key, expect: Expect) {
    match outcome {
        Err(CommitError::Conflict { space: s, key: k, expect: e }) => {
            assert_eq!((s, k.as_bytes(), e), (space, key.as_bytes(), expect), "the conflict names another row");
        }
        other => panic!("expected a conflict, got {other:?}"),
    }
}
