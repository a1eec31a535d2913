//! The sender against a real host.

use waybill_store::{Batch, Op, OutboxItem};

use super::*;
use crate::outbox::{FullMailboxes, Sender, SenderOptions};

fn item(to: &MailboxUrl, body: &str) -> OutboxItem {
    OutboxItem {
        to: to.to_string(),
        body: body.as_bytes().to_vec(),
        reply_key: b"reply".to_vec(),
        not_before: 0,
        deadline: NOW_MS * 2,
        kind: "test".to_owned(),
        blob: None,
        settle_on_delivery: true,
    }
}

fn sender(host: &Host, store: &Arc<MemoryStore>, objects: &Arc<MemoryObjects>, options: SenderOptions) -> Arc<Sender> {
    Arc::new(Sender {
        store: store.clone(),
        objects: objects.clone(),
        client: host.party("hospital-a.example", 9),
        book: None,
        backend: Arc::new(Native),
        clock: host.clock.clone(),
        options,
        full: FullMailboxes::default(),
    })
}

async fn enqueue(store: &MemoryStore, items: impl IntoIterator<Item = OutboxItem>) {
    let ops = items.into_iter().map(Op::Enqueue).collect();
    store.commit(Batch { name: "test", ops }).await.unwrap();
}

#[tokio::test]
async fn sender_posts_messages_and_blobs_enqueued_before_and_after_it_starts() {
    let host = Host::start_with(|settings| MailboxSettings { small: settings.large, ..settings }).await;
    let (_, url, session) = host.owner().await;
    let (store, objects) = (Arc::new(MemoryStore::default()), Arc::new(MemoryObjects::default()));
    let address = objects.put(Bytes::from("chunk")).await.unwrap();
    enqueue(&store, (0..20).map(|n| item(&url, &format!("message {n}")))).await;
    let shutdown = CancellationToken::new();
    let options = SenderOptions { parallel: 3, ..SenderOptions::default() };
    let task = tokio::spawn(sender(&host, &store, &objects, options).run(shutdown.clone()));
    enqueue(&store, [OutboxItem { body: Vec::new(), blob: Some(address), ..item(&url, "") }]).await;
    while store.outbox_count().await.unwrap() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(host.client().messages(&url, &session, None, Duration::ZERO).await.unwrap().len(), 20);
    assert_eq!(host.client().blob(&url, &session, &address).await.unwrap(), "chunk");
    shutdown.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn sender_keeps_what_it_cannot_deliver_and_backs_off() {
    let host = Host::start().await;
    let key = Native.generate_signing_key();
    let url = host.url(&key);
    let (store, objects) = (Arc::new(MemoryStore::default()), Arc::new(MemoryObjects::default()));
    enqueue(&store, [item(&url, "early"), OutboxItem { to: "nonsense".to_owned(), ..item(&url, "never") }]).await;
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(sender(&host, &store, &objects, SenderOptions::default()).run(shutdown.clone()));
    // Both are attempted and put off; the clock stands still, so nothing is due again.
    while !store.outbox_due(host.clock.now_ms(), 10).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.outbox_count().await.unwrap(), 2);
    host.client().create(&url, &key).await.unwrap();
    host.clock.advance_ms(60_000);
    // Any change of the outbox makes the sender look again.
    enqueue(&store, [OutboxItem { not_before: NOW_MS + 3_600_000, ..item(&url, "later") }]).await;
    while store.outbox_count().await.unwrap() > 2 {
        tokio::task::yield_now().await;
    }
    let session = host.client().open_session(&url, &key).await.unwrap();
    let letters = host.client().messages(&url, &session, None, Duration::ZERO).await.unwrap();
    assert_eq!(bodies(&letters), [b"early".as_slice()]);
    shutdown.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn sender_reaches_others_while_one_host_answers_nothing() {
    let host = Host::start().await;
    let (_, url, session) = host.owner().await;
    // It takes connections and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_host = silent.local_addr().unwrap().to_string();
    let (store, objects) = (Arc::new(MemoryStore::default()), Arc::new(MemoryObjects::default()));
    let letters = (0..60).map(|number| {
        let slow = MailboxUrl::new(&silent_host, MailboxId::of(Native.generate_signing_key().public())).unwrap();
        item(&slow, &format!("slow {number}"))
    });
    enqueue(&store, letters).await;
    enqueue(&store, [OutboxItem { not_before: 1, ..item(&url, "quick") }]).await;
    let options = SenderOptions { parallel: 4, per_host: 2, ..SenderOptions::default() };
    let task = tokio::spawn(sender(&host, &store, &objects, options).run(CancellationToken::new()));
    let arrived = host.client().messages(&url, &session, None, Duration::from_secs(30)).await.unwrap();
    assert_eq!(bodies(&arrived), [b"quick".as_slice()]);
    task.abort();
}

#[tokio::test]
async fn sender_tells_which_mailbox_is_full_until_it_has_room() {
    let host = Host::start().await;
    let (_, url, session) = host.owner().await;
    let (store, objects) = (Arc::new(MemoryStore::default()), Arc::new(MemoryObjects::default()));
    let client = host.party("hospital-c.example", 10);
    for chunk in ["one", "two"] {
        client.put_blob(&url, &Address::of(chunk.as_bytes()), Bytes::from(chunk)).await.unwrap();
    }
    let address = objects.put(Bytes::from("chunk")).await.unwrap();
    enqueue(&store, [OutboxItem { body: Vec::new(), blob: Some(address), ..item(&url, "") }]).await;
    let (sender, shutdown) = (sender(&host, &store, &objects, SenderOptions::default()), CancellationToken::new());
    let full = sender.full.clone();
    let task = tokio::spawn(sender.run(shutdown.clone()));
    while !full.holds(&url.to_string()) {
        tokio::task::yield_now().await;
    }
    while !store.outbox_due(host.clock.now_ms(), 10).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    client.delete_blob(&url, &session, &Address::of(b"one")).await.unwrap();
    host.clock.advance_ms(60_000);
    enqueue(&store, [OutboxItem { not_before: NOW_MS + 3_600_000, ..item(&url, "later") }]).await;
    while store.outbox_count().await.unwrap() > 1 {
        tokio::task::yield_now().await;
    }
    while !full.is_empty() {
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn sender_resends_what_is_delivered_but_not_settled() {
    let host = Host::start().await;
    let (_, url, session) = host.owner().await;
    let client = host.client();
    let (store, objects) = (Arc::new(MemoryStore::default()), Arc::new(MemoryObjects::default()));
    enqueue(&store, [OutboxItem { settle_on_delivery: false, ..item(&url, "ask") }]).await;
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(sender(&host, &store, &objects, SenderOptions::default()).run(shutdown.clone()));
    let first = client.messages(&url, &session, None, Duration::from_secs(30)).await.unwrap();
    client.acknowledge(&url, &session, first[0].seq).await.unwrap();
    while !store.outbox_due(host.clock.now_ms(), 10).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    host.clock.advance_ms(60_000);
    enqueue(&store, [OutboxItem { not_before: NOW_MS + 3_600_000, ..item(&url, "later") }]).await;
    let again = client.messages(&url, &session, None, Duration::from_secs(30)).await.unwrap();
    assert_eq!(bodies(&again), [b"ask".as_slice()]);
    store.commit(Batch::new("test").with(Op::Settle { reply_key: b"reply".to_vec() })).await.unwrap();
    assert_eq!(store.outbox_count().await.unwrap(), 0);
    shutdown.cancel();
    task.await.unwrap();
}

/// A registry that answers from the second question on.
struct Registry(std::sync::atomic::AtomicU64, String);

#[async_trait::async_trait]
impl crate::party::AddressBook for Registry {
    async fn mailbox(
        &self,
        to: &waybill_protocol::migration::Recipient,
    ) -> Result<Option<String>, crate::party::ServiceError> {
        assert_eq!(*to, waybill_protocol::migration::Recipient::Authority);
        if self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
            let down = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            return Err(crate::party::ServiceError::unavailable("the authority", down));
        }
        Ok(Some(self.1.clone()))
    }
}

#[tokio::test]
async fn an_item_that_names_its_receiver_waits_until_the_registry_answers() {
    let host = Host::start().await;
    let (_, url, session) = host.owner().await;
    let (store, objects) = (Arc::new(MemoryStore::default()), Arc::new(MemoryObjects::default()));
    let registry = Arc::new(Registry(std::sync::atomic::AtomicU64::new(0), url.to_string()));
    let plain = Arc::into_inner(sender(&host, &store, &objects, SenderOptions::default())).unwrap();
    let sender = Arc::new(Sender { book: Some(registry), ..plain });
    enqueue(&store, [OutboxItem { to: "authority".to_owned(), ..item(&url, "decided") }]).await;
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(sender.run(shutdown.clone()));
    while !store.outbox_due(host.clock.now_ms(), 10).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.outbox_count().await.unwrap(), 1, "what was decided stays, though nobody says where to send it");
    host.clock.advance_ms(60_000);
    enqueue(&store, [OutboxItem { not_before: NOW_MS + 3_600_000, ..item(&url, "later") }]).await;
    let letters = host.client().messages(&url, &session, None, Duration::from_secs(30)).await.unwrap();
    assert_eq!(bodies(&letters), [b"decided".as_slice()]);
    shutdown.cancel();
    task.await.unwrap();
}
