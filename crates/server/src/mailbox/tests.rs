mod sending;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::Request;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use waybill_crypto::backend::Backend;
use waybill_crypto::keys::SigningKey;
use waybill_crypto::native::Native;
use waybill_store::{Address, Key, MemoryObjects, MemoryStore, Objects, Space, Store};

use super::client::MailboxClientError;
use super::wire::{CreateRequest, MAX_BLOB_BYTES, MAX_MESSAGE_BYTES, Session, create_payload};
use super::*;
use crate::clock::{Clock, ManualClock};
use crate::limits::Rate;
use crate::net::client::{ClientError, Exchange, HttpClient};
use crate::net::peer::{PartyName, Peer};
use crate::net::server::{Drain, Server, ServerOptions};
use crate::net::testing::TestAuthority;
use crate::net::tls::ClientAuth;

const NOW_MS: u64 = 1_800_000_000_000;
const QUOTA: Quota = Quota { messages: 3, message_bytes: 6 << 20, blobs: 2, blob_bytes: 2 << 20 };

/// A mailbox host over memory, on a real socket.
struct Host {
    authority: TestAuthority,
    store: Arc<MemoryStore>,
    objects: Arc<MemoryObjects>,
    clock: Arc<ManualClock>,
    mailboxes: Arc<Mailboxes>,
    host: String,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Drain>,
}

impl Host {
    async fn start() -> Self {
        Self::start_with(|settings| settings).await
    }

    async fn start_with(adjust: impl FnOnce(MailboxSettings) -> MailboxSettings) -> Self {
        let authority = TestAuthority::new();
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), ServerOptions::default()).await.unwrap();
        let (host, shutdown) = (server.address().to_string(), CancellationToken::new());
        let (store, objects) = (Arc::new(MemoryStore::default()), Arc::new(MemoryObjects::default()));
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let base = MailboxSettings::for_hosts(vec!["other.example".to_owned(), host.clone()]);
        let settings = adjust(MailboxSettings { small: QUOTA, ..base });
        let mailboxes =
            Mailboxes::new(store.clone(), objects.clone(), Arc::new(Native), clock.clone(), settings, shutdown.clone());
        let tls = authority.server_tls(ClientAuth::Optional, None);
        let task = tokio::spawn(server.serve(router(mailboxes.clone()), tls, shutdown.clone()));
        Self { authority, store, objects, clock, mailboxes, host, shutdown, task }
    }

    fn client(&self) -> MailboxClient {
        self.client_over(self.authority.client(None))
    }

    /// A client with a certificate.
    fn party(&self, name: &str, serial: u64) -> MailboxClient {
        self.client_over(self.authority.client(Some(self.authority.issue(name, serial))))
    }

    fn client_over(&self, http: HttpClient) -> MailboxClient {
        MailboxClient::new(http, Arc::new(Native), self.clock.clone())
    }

    fn url(&self, key: &SigningKey) -> MailboxUrl {
        MailboxUrl::new(&self.host, MailboxId::of(key.public())).unwrap()
    }

    fn inbox(&self, key: &Arc<SigningKey>) -> RemoteInbox {
        RemoteInbox::new(self.client(), self.url(key), key.clone(), self.clock.clone())
    }

    async fn owner(&self) -> (Arc<SigningKey>, MailboxUrl, Session) {
        let key = Arc::new(Native.generate_signing_key());
        let (client, url) = (self.client(), self.url(&key));
        client.create(&url, &key).await.unwrap();
        let session = client.open_session(&url, &key).await.unwrap();
        (key, url, session)
    }
}

fn status(error: &MailboxClientError) -> u16 {
    error.status().unwrap_or_else(|| panic!("{error:?}"))
}

fn bodies(letters: &[Letter]) -> Vec<&[u8]> {
    letters.iter().map(|letter| letter.body.as_slice()).collect()
}

#[tokio::test]
async fn message_waits_once_until_it_is_acknowledged_and_may_come_again() {
    let host = Host::start().await;
    let (_, url, session) = host.owner().await;
    let client = host.client();
    for body in ["one", "two", "one"] {
        client.post(&url, Bytes::from(body)).await.unwrap();
    }
    let letters = client.messages(&url, &session, None, Duration::ZERO).await.unwrap();
    assert_eq!(bodies(&letters), [b"one".as_slice(), b"two"]);
    let rest = client.messages(&url, &session, Some(letters[0].seq), Duration::ZERO).await.unwrap();
    assert_eq!(bodies(&rest), [b"two".as_slice()]);
    client.acknowledge(&url, &session, letters[0].seq).await.unwrap();
    client.acknowledge(&url, &session, letters[0].seq).await.expect("again is no error");
    client.post(&url, Bytes::from("one")).await.unwrap();
    let letters = client.messages(&url, &session, None, Duration::ZERO).await.unwrap();
    assert_eq!(bodies(&letters), [b"two".as_slice(), b"one"]);
}

#[tokio::test]
async fn long_poll_wakes_every_reader_and_ends_with_the_server() {
    let host = Host::start().await;
    let (_, url, session) = host.owner().await;
    let poll = || {
        let (client, url, session) = (host.client(), url.clone(), session.clone());
        tokio::spawn(async move { client.messages(&url, &session, None, Duration::from_secs(30)).await })
    };
    let (one, two) = (poll(), poll());
    host.client().post(&url, Bytes::from("hello")).await.unwrap();
    assert_eq!(bodies(&one.await.unwrap().unwrap()), [b"hello".as_slice()]);
    assert_eq!(bodies(&two.await.unwrap().unwrap()), [b"hello".as_slice()]);

    let (_, idle, session) = host.owner().await;
    let client = host.client();
    let waiting = tokio::spawn(async move { client.messages(&idle, &session, None, Duration::from_secs(30)).await });
    while host.mailboxes.store.count(Space::Mailbox, &Key::empty()).await.unwrap() < 2 {
        tokio::task::yield_now().await;
    }
    host.shutdown.cancel();
    assert_eq!(host.task.await.unwrap(), Drain::Complete);
    // Answered empty, or never accepted: in no case does shutdown wait for the poll.
    if let Ok(letters) = waiting.await.unwrap() {
        assert!(letters.is_empty());
    }
}

#[tokio::test]
async fn reading_takes_the_mailbox_own_token() {
    let host = Host::start().await;
    let ((_, url, session), (_, _, foreign)) = (host.owner().await, host.owner().await);
    let client = host.client();
    let wrong = client.messages(&url, &foreign, None, Duration::ZERO).await.unwrap_err();
    assert_eq!(status(&wrong), 401);
    let none = Request::get(url.join("/messages")).body(Bytes::new()).unwrap();
    let exchange = Exchange { timeout: Duration::from_secs(10), max_response: 100 };
    assert_eq!(client.http().send(none, exchange).await.unwrap_err().status().unwrap().as_u16(), 401);
    let unknown = host.url(&Native.generate_signing_key());
    let error = client.messages(&unknown, &session, None, Duration::ZERO).await.unwrap_err();
    assert_eq!(status(&error), 401, "whether a mailbox exists is not told to who has no token");
    let address = Address::of(b"x");
    assert_eq!(status(&client.blob(&url, &foreign, &address).await.unwrap_err()), 401);
    assert_eq!(status(&client.delete_blob(&url, &foreign, &address).await.unwrap_err()), 401);
    assert_eq!(status(&client.acknowledge(&url, &foreign, 1).await.unwrap_err()), 401);
    assert_eq!(status(&client.delete(&url, &foreign).await.unwrap_err()), 401);
    host.clock.advance_ms(600_000);
    let expired = client.messages(&url, &session, None, Duration::ZERO).await.unwrap_err();
    assert_eq!(status(&expired), 401);
}

#[tokio::test]
async fn proofs_are_bound_to_key_host_and_time() {
    let host = Host::start().await;
    let client = host.client();
    let (key, other) = (Native.generate_signing_key(), Native.generate_signing_key());
    assert_eq!(status(&client.open_session(&host.url(&key), &key).await.unwrap_err()), 404);
    client.create(&host.url(&key), &key).await.unwrap();
    assert_eq!(status(&client.create(&host.url(&key), &other).await.unwrap_err()), 403, "another key");
    assert_eq!(status(&client.open_session(&host.url(&key), &other).await.unwrap_err()), 403);
    let id = MailboxId::of(key.public());
    let request = |host: &str, time| CreateRequest {
        public_key: key.public().clone(),
        time,
        signature: Native.sign(&key, &create_payload(&id, host, time)),
    };
    let now = NOW_MS / 1000;
    let create = |request| {
        let mailboxes = host.mailboxes.clone();
        async move { mailboxes.create(&id, &request, None).await }
    };
    create(request("other.example", now)).await.unwrap();
    for bad in [request("evil.example", now), request("other.example", now - 301), request("other.example", now + 301)]
    {
        assert!(matches!(create(bad).await, Err(MailboxError::Proof(_))));
    }
    let moved = CreateRequest { time: now - 1, ..request("other.example", now) };
    assert!(matches!(create(moved).await, Err(MailboxError::Proof(_))));
}

#[tokio::test]
async fn unknown_mailbox_and_oversized_message_are_refused() {
    let host = Host::start().await;
    let client = host.client();
    let unknown = host.url(&Native.generate_signing_key());
    assert_eq!(status(&client.post(&unknown, Bytes::from("x")).await.unwrap_err()), 404);
    let (_, url, _) = host.owner().await;
    client.post(&url, Bytes::from(vec![0; MAX_MESSAGE_BYTES])).await.unwrap();
    let error = client.post(&url, Bytes::from(vec![0; MAX_MESSAGE_BYTES + 1])).await.unwrap_err();
    assert_eq!(status(&error), 413);
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn quota_refuses_until_something_is_removed() {
    let host = Host::start().await;
    let (_, url, session) = host.owner().await;
    let client = host.client();
    for body in ["1", "2", "3"] {
        client.post(&url, Bytes::from(body)).await.unwrap();
    }
    let error = client.post(&url, Bytes::from("4")).await.unwrap_err();
    assert_eq!(status(&error), 507);
    assert!(error.is_retryable());
    let letters = client.messages(&url, &session, None, Duration::ZERO).await.unwrap();
    client.acknowledge(&url, &session, letters[0].seq).await.unwrap();
    client.post(&url, Bytes::from("4")).await.unwrap();
    // By bytes, in a fresh mailbox.
    let (_, url, _) = host.owner().await;
    client.post(&url, Bytes::from(vec![1; 4 << 20])).await.unwrap();
    assert_eq!(status(&client.post(&url, Bytes::from(vec![2; 3 << 20])).await.unwrap_err()), 507);
}

#[tokio::test]
async fn party_with_a_certificate_gets_the_large_quota_and_a_bounded_number() {
    let host = Host::start_with(|settings| MailboxSettings { max_per_party: 1, ..settings }).await;
    let identity = host.authority.issue("hospital-a.example", 9);
    let client = host.client_over(host.authority.client(Some(identity)));
    let key = Native.generate_signing_key();
    let url = host.url(&key);
    client.create(&url, &key).await.unwrap();
    client.create(&url, &key).await.expect("renewing is not a second mailbox");
    for body in ["1", "2", "3", "4"] {
        client.post(&url, Bytes::from(body)).await.unwrap();
    }
    let second = Native.generate_signing_key();
    assert_eq!(status(&client.create(&host.url(&second), &second).await.unwrap_err()), 507);
}

#[tokio::test]
async fn strangers_are_rated_and_full_hosts_refuse_them() {
    let host = Host::start_with(|settings| MailboxSettings {
        post_rate: Rate { burst: 2, per_minute: 60 },
        max_mailboxes: 1,
        ..settings
    })
    .await;
    let (_, url, _) = host.owner().await;
    let client = host.client();
    client.post(&url, Bytes::from("1")).await.unwrap();
    client.post(&url, Bytes::from("2")).await.unwrap();
    let error = client.post(&url, Bytes::from("3")).await.unwrap_err();
    assert_eq!(status(&error), 429);
    let MailboxClientError::Exchange(ClientError::Status { retry_after_seconds, .. }) = error else { panic!() };
    assert_eq!(retry_after_seconds, Some(1));
    host.clock.advance_ms(1000);
    client.post(&url, Bytes::from("3")).await.unwrap();
    let key = Native.generate_signing_key();
    assert_eq!(status(&client.create(&host.url(&key), &key).await.unwrap_err()), 507);
}

#[tokio::test]
async fn blob_is_checked_shared_and_deleted_with_its_last_mailbox() {
    let host = Host::start().await;
    let ((_, one, first), (_, two, second)) = (host.owner().await, host.owner().await);
    let client = host.party("hospital-a.example", 9);
    let bytes = Bytes::from(vec![7; MAX_BLOB_BYTES]);
    let address = Address::of(&bytes);
    let error = client.put_blob(&one, &address, Bytes::from("other")).await.unwrap_err();
    assert_eq!(status(&error), 422);
    assert!(!host.objects.exists(&address).await.unwrap());
    for url in [&one, &two, &one] {
        client.put_blob(url, &address, bytes.clone()).await.unwrap();
    }
    assert_eq!(client.blob(&one, &first, &address).await.unwrap(), bytes);
    client.delete_blob(&one, &first, &address).await.unwrap();
    client.delete_blob(&one, &first, &address).await.expect("again is no error");
    assert_eq!(status(&client.blob(&one, &first, &address).await.unwrap_err()), 404);
    assert_eq!(client.blob(&two, &second, &address).await.unwrap(), bytes, "the other mailbox still has it");
    client.delete(&two, &second).await.unwrap();
    assert!(!host.objects.exists(&address).await.unwrap());
    assert_eq!(host.store.count(Space::Unique, &Key::empty()).await.unwrap(), 0);
    let large = Bytes::from(vec![7; MAX_BLOB_BYTES + 1]);
    assert_eq!(status(&client.put_blob(&one, &Address::of(&large), large).await.unwrap_err()), 413);
}

#[tokio::test]
async fn blob_quota_refuses_and_leaves_no_object_behind() {
    let host = Host::start().await;
    let (_, url, _) = host.owner().await;
    let client = host.party("hospital-a.example", 9);
    let put = |byte: u8| {
        let bytes = Bytes::from(vec![byte; 100]);
        (Address::of(&bytes), bytes)
    };
    for byte in [1, 2] {
        let (address, bytes) = put(byte);
        client.put_blob(&url, &address, bytes).await.unwrap();
    }
    let (address, bytes) = put(3);
    assert_eq!(status(&client.put_blob(&url, &address, bytes).await.unwrap_err()), 507);
    assert!(!host.objects.exists(&address).await.unwrap());
}

#[tokio::test]
async fn strangers_put_no_blob_and_take_no_room_from_a_hospital() {
    let host = Host::start().await;
    let (_, url, session) = host.owner().await;
    let (stranger, hospital) = (host.client(), host.party("hospital-a.example", 9));
    for byte in [1, 2, 3] {
        let junk = Bytes::from(vec![byte]);
        assert_eq!(status(&stranger.put_blob(&url, &Address::of(&junk), junk).await.unwrap_err()), 403);
    }
    assert_eq!(host.objects.total_size().await.unwrap(), 0);
    for chunk in ["one", "two"] {
        hospital.put_blob(&url, &Address::of(chunk.as_bytes()), Bytes::from(chunk)).await.unwrap();
    }
    let fill = stranger.fill(&url, &session).await.unwrap();
    assert_eq!((fill.held.blobs, fill.held.blob_bytes, fill.most, fill.percent()), (2, 6, QUOTA, 100));
}

#[tokio::test]
async fn owner_lists_what_waits_with_its_sender_and_deletes_it() {
    let host = Host::start().await;
    let (key, url, session) = host.owner().await;
    let (_, _, foreign) = host.owner().await;
    let (client, hospital) = (host.client(), host.party("hospital-a.example", 9));
    let chunks = ["one", "two"].map(|chunk| (Address::of(chunk.as_bytes()), Bytes::from(chunk)));
    for (address, bytes) in &chunks {
        hospital.put_blob(&url, address, bytes.clone()).await.unwrap();
    }
    assert_eq!(status(&client.blobs(&url, &foreign, None).await.unwrap_err()), 401);
    assert_eq!(status(&client.fill(&url, &foreign).await.unwrap_err()), 401);
    let inbox = host.inbox(&key);
    let page = inbox.blobs(None).await.unwrap();
    let mut addresses = chunks.map(|(address, _)| *address.as_bytes());
    addresses.sort_unstable();
    assert_eq!(page.iter().map(|entry| *entry.address).collect::<Vec<_>>(), addresses);
    assert!(page.iter().all(|entry| entry.from.as_deref() == Some("hospital-a.example")));
    assert_eq!(page[0].put_at, NOW_MS / 1000);
    let first = Address::from_bytes(addresses[0]);
    assert_eq!(inbox.blobs(Some(&first)).await.unwrap(), page[1..]);
    inbox.delete_blob(&first).await.unwrap();
    assert_eq!(client.blobs(&url, &session, None).await.unwrap(), page[1..]);
}

#[tokio::test]
async fn remote_inbox_survives_a_host_that_forgets() {
    let host = Host::start().await;
    let key = Arc::new(Native.generate_signing_key());
    let inbox = host.inbox(&key);
    assert!(inbox.letters(None, Duration::ZERO).await.unwrap().is_empty(), "makes its mailbox by itself");
    host.mailboxes.sessions.sweep(u64::MAX);
    assert!(inbox.letters(None, Duration::ZERO).await.unwrap().is_empty(), "tokens were forgotten");
    host.mailboxes.delete(&inbox.url().id()).await.unwrap();
    inbox.letters(None, Duration::ZERO).await.unwrap_err();
    host.client().post(inbox.url(), Bytes::from("lost")).await.unwrap_err();
    inbox.letters(None, Duration::ZERO).await.expect("and makes it again");
    host.client().post(inbox.url(), Bytes::from("kept")).await.unwrap();
    assert_eq!(bodies(&inbox.letters(None, Duration::ZERO).await.unwrap()), [b"kept".as_slice()]);
    assert!(matches!(inbox.blob(&Address::of(b"x")).await, Err(InboxError::NoBlob)));
    inbox.delete().await.unwrap();
}

#[tokio::test]
async fn local_inbox_reads_what_strangers_post() {
    let host = Host::start().await;
    let key = Native.generate_signing_key();
    let id = host.mailboxes.create_own(key.public(), &PartyName::own("hospital-b.example")).await.unwrap();
    let url = MailboxUrl::new(&host.host, id).unwrap();
    let inbox = LocalInbox::new(host.mailboxes.clone(), url.clone());
    let (client, address) = (host.party("hospital-a.example", 9), Address::of(b"chunk"));
    client.put_blob(&url, &address, Bytes::from("chunk")).await.unwrap();
    let waiting = tokio::spawn(async move { (inbox.letters(None, Duration::from_secs(30)).await, inbox) });
    client.post(&url, Bytes::from("hello")).await.unwrap();
    let (letters, inbox) = waiting.await.unwrap();
    let letters = letters.unwrap();
    assert_eq!(bodies(&letters), [b"hello".as_slice()]);
    assert_eq!(inbox.blob(&address).await.unwrap(), "chunk");
    inbox.acknowledge(letters[0].seq).await.unwrap();
    inbox.acknowledge(letters[0].seq).await.unwrap();
    inbox.delete_blob(&address).await.unwrap();
    assert!(matches!(inbox.blob(&address).await, Err(InboxError::NoBlob)));
}

#[tokio::test]
async fn sweep_removes_what_is_old_and_keeps_the_rest() {
    let host = Host::start_with(|settings| MailboxSettings {
        small_lifetime_seconds: 1000,
        retention_seconds: 100,
        ..settings
    })
    .await;
    let (_, url, _) = host.owner().await;
    let client = host.client();
    client.post(&url, Bytes::from("old")).await.unwrap();
    host.party("hospital-a.example", 9).put_blob(&url, &Address::of(b"old"), Bytes::from("old")).await.unwrap();
    host.clock.advance_ms(101_000);
    client.post(&url, Bytes::from("new")).await.unwrap();
    assert_eq!(host.mailboxes.sweep().await.unwrap(), Swept { mailboxes: 0, messages: 1, blobs: 1 });
    assert_eq!(host.mailboxes.sweep().await.unwrap(), Swept::default());
    host.clock.advance_ms(900_000);
    assert_eq!(host.mailboxes.sweep().await.unwrap().mailboxes, 1);
    for space in [Space::Mailbox, Space::Mail, Space::Blob, Space::Unique] {
        assert_eq!(host.store.count(space, &Key::empty()).await.unwrap(), 0, "{space:?}");
    }
}

/// Puts off the first letter once, then takes everything.
struct Reluctant {
    refusals: AtomicUsize,
    seen: mpsc::UnboundedSender<Vec<u8>>,
}

#[async_trait]
impl LetterHandler for Reluctant {
    async fn handle(&self, letter: &Letter) -> Disposal {
        if self.refusals.fetch_add(1, Ordering::SeqCst) == 0 {
            return Disposal::Later;
        }
        self.seen.send(letter.body.clone()).unwrap();
        Disposal::Done
    }
}

#[tokio::test]
async fn loop_shows_a_letter_again_and_lets_none_wait_for_it() {
    let host = Host::start().await;
    let (key, url, session) = host.owner().await;
    let client = host.client();
    client.post(&url, Bytes::from("1")).await.unwrap();
    client.post(&url, Bytes::from("2")).await.unwrap();
    let (seen, mut received) = mpsc::unbounded_channel();
    let handler = Arc::new(Reluctant { refusals: AtomicUsize::new(0), seen });
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(receive_loop(Arc::new(host.inbox(&key)), handler, shutdown.clone()));
    assert_eq!(received.recv().await.unwrap(), b"2", "the one behind it does not wait");
    assert_eq!(received.recv().await.unwrap(), b"1", "it comes again");
    while !client.messages(&url, &session, None, Duration::ZERO).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    task.await.unwrap();
}

/// Takes as long with "slow" letters as the test wants, and tells of every letter it is done with.
struct Slow {
    gate: tokio::sync::Semaphore,
    begun: AtomicUsize,
    seen: mpsc::UnboundedSender<Vec<u8>>,
}

#[async_trait]
impl LetterHandler for Slow {
    async fn handle(&self, letter: &Letter) -> Disposal {
        if self.takes_long(letter) {
            let fails = self.begun.fetch_add(1, Ordering::SeqCst) == 0;
            self.gate.acquire().await.unwrap().forget();
            if fails {
                return Disposal::Later;
            }
        }
        self.seen.send(letter.body.clone()).unwrap();
        Disposal::Done
    }

    fn takes_long(&self, letter: &Letter) -> bool {
        letter.body.starts_with(b"slow")
    }
}

#[tokio::test]
async fn letters_that_take_long_hold_up_none_and_stay_until_they_are_done() {
    let host = Host::start_with(|settings| MailboxSettings { small: settings.large, ..settings }).await;
    let (key, url, session) = host.owner().await;
    let client = host.client();
    for body in ["slow 1", "slow 2", "quick"] {
        client.post(&url, Bytes::from(body)).await.unwrap();
    }
    let (seen, mut received) = mpsc::unbounded_channel();
    let handler = Arc::new(Slow { gate: tokio::sync::Semaphore::new(0), begun: AtomicUsize::new(0), seen });
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(receive_loop(Arc::new(host.inbox(&key)), handler.clone(), shutdown.clone()));
    assert_eq!(received.recv().await.unwrap(), b"quick", "it does not wait for those before it");
    client.post(&url, Bytes::from("later")).await.unwrap();
    assert_eq!(received.recv().await.unwrap(), b"later");
    let left = || async { client.messages(&url, &session, None, Duration::ZERO).await.unwrap() };
    while left().await.len() > 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bodies(&left().await), [b"slow 1".as_slice(), b"slow 2"], "a crash now would lose neither");
    assert_eq!(handler.begun.load(Ordering::SeqCst), 2, "each is dealt with once at a time");
    // One of the two fails and is shown again; in the end both are done and gone.
    handler.gate.add_permits(3);
    let mut done = [received.recv().await.unwrap(), received.recv().await.unwrap()];
    done.sort();
    assert_eq!(done, [b"slow 1".to_vec(), b"slow 2".to_vec()]);
    while !left().await.is_empty() {
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn host_that_is_no_relay_takes_messages_for_itself_only() {
    let host = Host::start().await;
    let key = Native.generate_signing_key();
    let own = host.mailboxes.create_own(key.public(), &PartyName::own("authority.example")).await.unwrap();
    let (_, other, _) = host.owner().await;
    let router = posting_router(host.mailboxes.clone(), own);
    let ask = |method: &str, path: String| {
        let (router, request) = (router.clone(), Request::builder().method(method).uri(path));
        let mut request = request.body(axum::body::Body::from("x")).unwrap();
        request.extensions_mut().insert(Peer { address: None, party: None, user: None });
        async move { tower::ServiceExt::oneshot(router, request).await.unwrap().status().as_u16() }
    };
    assert_eq!(ask("POST", format!("/mailbox/{own}/messages")).await, 202);
    assert_eq!(ask("POST", format!("/mailbox/{}/messages", other.id())).await, 404);
    for (method, path) in [
        ("PUT", format!("/mailbox/{own}")),
        ("POST", format!("/mailbox/{own}/session")),
        ("PUT", format!("/mailbox/{own}/blobs/{}", Address::of(b"x"))),
        ("GET", format!("/mailbox/{own}/blobs")),
    ] {
        assert_eq!(ask(method, path.clone()).await, 404, "{method} {path}");
    }
    assert_eq!(ask("GET", format!("/mailbox/{own}/messages")).await, 405);
}
