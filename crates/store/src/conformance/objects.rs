//! Checks of objects.

use crate::{Address, ByteStream, ObjectError, Objects};
use bytes::Bytes;
use futures::StreamExt;

/// Runs every check of [`Objects`], each on an empty back end that `fresh` makes with the given quota.
pub async fn objects<O: Objects>(fresh: impl AsyncFn(Option<u64>) -> O) {
    put_get_delete(&fresh(None).await).await;
    streams(&fresh(None).await).await;
    ranges(&fresh(None).await).await;
    lists(&fresh(None).await).await;
    quota(&fresh(Some(100)).await).await;
    many_at_once(&fresh(None).await).await;
}

fn stream(pieces: usize, length: usize) -> ByteStream<'static> {
    futures::stream::iter((0..pieces).map(move |n| Ok(Bytes::from(vec![n as u8; length])))).boxed()
}

async fn put_get_delete(objects: &impl Objects) {
    let absent = Address::of(b"absent");
    assert!(matches!(objects.get(&absent).await, Err(ObjectError::NotFound(address)) if address == absent));
    assert!(!objects.exists(&absent).await.expect("looked"));
    assert!(!objects.delete(&absent).await.expect("looked"));
    for bytes in [Bytes::new(), Bytes::from_static(b"abc"), Bytes::from(vec![1; 3_000_000])] {
        let address = objects.put(bytes.clone()).await.expect("stored");
        assert_eq!(address, Address::of(&bytes));
        assert_eq!(objects.put(bytes.clone()).await.expect("stored again"), address);
        assert_eq!(objects.get(&address).await.expect("read"), bytes);
        assert_eq!(objects.size(&address).await.expect("looked"), Some(bytes.len() as u64));
    }
    assert_eq!(objects.total_size().await.expect("looked"), 3_000_003, "the same bytes count once");
    assert!(objects.delete(&Address::of(b"abc")).await.expect("deleted"));
    assert!(!objects.exists(&Address::of(b"abc")).await.expect("looked"));
    assert_eq!(objects.total_size().await.expect("looked"), 3_000_000);
}

async fn streams(objects: &impl Objects) {
    let whole: Vec<u8> = (0..30).flat_map(|n| vec![n; 100_000]).collect();
    let address = Address::of(&whole);
    let stored = objects.put_stream(stream(30, 100_000), 3_000_000, Some(address)).await.expect("stored");
    assert_eq!((stored.address, stored.size_bytes), (address, 3_000_000));
    assert_eq!(objects.get(&address).await.expect("read"), whole);
    objects.put_stream(stream(30, 100_000), 3_000_000, None).await.expect("stored again");
    let large = objects.put_stream(stream(31, 100_000), 3_099_999, None).await;
    assert!(matches!(large, Err(ObjectError::TooLarge { limit_bytes: 3_099_999 })), "{large:?}");
    let wrong = objects.put_stream(stream(2, 10), 100, Some(address)).await;
    assert!(matches!(wrong, Err(ObjectError::Mismatch { expected, .. }) if expected == address), "{wrong:?}");
    let pieces = [Ok(Bytes::from_static(b"a")), Err(std::io::Error::other("broken"))];
    let broken = objects.put_stream(futures::stream::iter(pieces).boxed(), 100, None).await;
    assert!(matches!(broken, Err(ObjectError::Stream(_))), "{broken:?}");
    assert!(!objects.exists(&Address::of(b"a")).await.expect("looked"));
    assert_eq!(objects.total_size().await.expect("looked"), 3_000_000, "what was refused takes no room");
    let empty = objects.put_stream(stream(0, 0), 0, None).await.expect("stored");
    assert_eq!(empty.address, Address::of(b""));
}

async fn ranges(objects: &impl Objects) {
    let bytes: Vec<u8> = (0..700_000u32).map(|n| (n % 251) as u8).collect();
    let address = objects.put(bytes.clone().into()).await.expect("stored");
    for range in [0..0, 0..1, 262_143..262_145, 100..600_000, 699_999..700_000, 0..700_000, 700_000..700_000] {
        let part = objects.range(&address, range.clone()).await.expect("read");
        assert_eq!(part, bytes[range.start as usize..range.end as usize], "{range:?}");
    }
    #[allow(clippy::reversed_empty_ranges)]
    for range in [0..700_001, 700_001..700_001, 5..4] {
        let outside = objects.range(&address, range).await;
        assert!(matches!(outside, Err(ObjectError::OutOfRange)), "{outside:?}");
    }
    assert!(matches!(objects.range(&Address::of(b"absent"), 0..0).await, Err(ObjectError::NotFound(_))));
}

async fn lists(objects: &impl Objects) {
    let mut expected = Vec::new();
    for n in 0..40u8 {
        expected.push(objects.put(vec![n].into()).await.expect("stored"));
    }
    expected.sort_unstable();
    let mut found: Vec<Address> = Vec::new();
    loop {
        let page = objects.list(found.last(), 7).await.expect("listed");
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 7);
        found.extend(page);
    }
    assert_eq!(found, expected);
}

async fn quota(objects: &impl Objects) {
    let first = objects.put(vec![1; 60].into()).await.expect("stored");
    assert!(matches!(objects.put(vec![2; 41].into()).await, Err(ObjectError::Full(_))));
    assert!(matches!(objects.put_stream(stream(5, 9), 1_000, None).await, Err(ObjectError::Full(_))));
    objects.put(vec![1; 60].into()).await.expect("what is there needs no room");
    objects.put(vec![2; 40].into()).await.expect("what fits is stored");
    assert!(objects.delete(&first).await.expect("deleted"));
    objects.put(vec![3; 60].into()).await.expect("freed room is used again");
}

async fn many_at_once(objects: &impl Objects) {
    let same = vec![5; 10_000];
    let puts = (0..32).map(|n| {
        let bytes = if n % 2 == 0 { same.clone() } else { vec![n; 10_000] };
        objects.put(bytes.into())
    });
    for outcome in futures::future::join_all(puts).await {
        let address = outcome.expect("stored");
        assert_eq!(objects.size(&address).await.expect("looked"), Some(10_000));
    }
    // fifteen odd numbers but 5 differ from the shared object
    assert_eq!(objects.total_size().await.expect("looked"), 160_000, "racing puts of the same bytes count once");
}
