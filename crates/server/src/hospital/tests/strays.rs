//! What lies in a hospital's mailbox and belongs to no open case.

use waybill_store::{Address, MemoryObjects};

use super::common::{B, Step};
use super::*;
use crate::hospital::strays;
use crate::mailbox::{LocalInbox, MailboxSettings, MailboxUrl, Mailboxes, Quota};
use crate::net::peer::PartyName;

const HOST: &str = "relay.example";

async fn mailbox(house: &House, world: &World) -> (Arc<Mailboxes>, LocalInbox) {
    let most = Quota { messages: 9, message_bytes: 9, blobs: 2, blob_bytes: 1000 };
    let settings = MailboxSettings { large: most, ..MailboxSettings::for_hosts(vec![HOST.to_owned()]) };
    let (store, objects) = (Arc::new(MemoryStore::new()), Arc::new(MemoryObjects::default()));
    let mailboxes = Mailboxes::new(store, objects, Arc::new(Native), house.clock.clone(), settings, Default::default());
    let id = mailboxes.create_own(world.b.identity.signing.public(), &PartyName::own(B)).await.unwrap();
    let inbox = LocalInbox::new(mailboxes.clone(), MailboxUrl::new(HOST, id).unwrap());
    (mailboxes, inbox)
}

#[tokio::test]
async fn chunks_that_no_open_case_waits_for_make_room_for_those_that_one_does() {
    let mut world = World::new();
    let m = world.migrate(1, Step::Requested);
    let house = House::new(&world, &world.b).await;
    house.put_destination(&m.destination()).await;
    let (mailboxes, inbox) = mailbox(&house, &world).await;
    let id = crate::mailbox::Inbox::url(&inbox).id();
    let put = |bytes: &'static str, from: &str| {
        let (mailboxes, from) = (mailboxes.clone(), PartyName::own(from));
        async move { mailboxes.put_blob(&id, &Address::of(bytes.as_bytes()), bytes.into(), &from).await }
    };
    let source = m.destination().source.to_string();
    put("junk", "stranger.example").await.unwrap();
    put("first chunk", &source).await.unwrap();
    assert!(put("second chunk", &source).await.is_err(), "the mailbox is full");
    assert!(strays::discard(&house.engine, &inbox).await.unwrap().is_empty(), "a manifest may still be on its way");
    house.turn(NOW.plus(3601));
    let gone = strays::discard(&house.engine, &inbox).await.unwrap();
    assert_eq!(gone.into_iter().collect::<Vec<_>>(), [("stranger.example".to_owned(), 1)]);
    put("second chunk", &source).await.unwrap();
    assert!(mailboxes.has_blob(&id, &Address::of(b"first chunk")).await.unwrap());

    let delivered = world.migrate(2, Step::Delivered);
    let later = House::new(&world, &world.b).await;
    later.put_destination(&delivered.destination()).await;
    later.turn(NOW.plus(7300));
    let gone = strays::discard(&later.engine, &inbox).await.unwrap();
    assert_eq!(gone.get(&source), Some(&2), "its record is here: nobody waits for these any more");
}
