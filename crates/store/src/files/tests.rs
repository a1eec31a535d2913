use super::*;
use std::os::unix::fs::PermissionsExt;

fn place(objects: &FileObjects, address: &Address) -> PathBuf {
    objects.inner.place(address).1
}

fn open(path: &Path) -> FileObjects {
    FileObjects::open(DataFolder::open(path).unwrap(), None).unwrap()
}

#[tokio::test]
async fn a_flipped_or_missing_bit_is_an_error_and_putting_again_repairs_it() {
    let home = tempfile::tempdir().unwrap();
    let objects = open(home.path());
    let bytes = Bytes::from(vec![7; 600_000]);
    let address = objects.put(bytes.clone()).await.unwrap();
    let file = place(&objects, &address);
    let mut flipped = bytes.to_vec();
    flipped[599_999] ^= 1;
    for damage in [flipped.as_slice(), &bytes[..599_999], &[]] {
        fs::write(&file, damage).unwrap();
        assert!(matches!(objects.get(&address).await, Err(ObjectError::Damaged(a)) if a == address));
        if damage.len() > 10 {
            // the part asked for is intact, the object is not
            assert!(matches!(objects.range(&address, 0..10).await, Err(ObjectError::Damaged(_))));
        }
        objects.put(bytes.clone()).await.unwrap();
        assert_eq!(objects.get(&address).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_gone_after_the_next_start() {
    let home = tempfile::tempdir().unwrap();
    let objects = open(home.path());
    let kept = objects.put(Bytes::from_static(b"whole")).await.unwrap();
    let half = home.path().join(FOLDER).join(INCOMING).join("17");
    fs::write(&half, b"hal").unwrap();
    drop(objects);
    let objects = open(home.path());
    assert!(!half.exists());
    assert_eq!(objects.get(&kept).await.unwrap(), "whole");
    assert_eq!(objects.total_size().await.unwrap(), 5);
}

#[tokio::test]
async fn a_refused_or_broken_stream_leaves_no_file_behind() {
    let home = tempfile::tempdir().unwrap();
    let objects = open(home.path());
    let broken: ByteStream =
        futures::stream::iter([Ok(Bytes::from_static(b"a")), Err(io::Error::other("gone"))]).boxed();
    assert!(matches!(objects.put_stream(broken, 10, None).await, Err(ObjectError::Stream(_))));
    let wrong: ByteStream = futures::stream::iter([Ok(Bytes::from_static(b"a"))]).boxed();
    let expected = Some(Address::of(b"b"));
    assert!(matches!(objects.put_stream(wrong, 10, expected).await, Err(ObjectError::Mismatch { .. })));
    assert_eq!(fs::read_dir(home.path().join(FOLDER).join(INCOMING)).unwrap().count(), 0);
    assert_eq!(objects.total_size().await.unwrap(), 0);
}

#[tokio::test]
async fn files_are_private() {
    let home = tempfile::tempdir().unwrap();
    let objects = open(home.path());
    let address = objects.put(Bytes::from_static(b"secret")).await.unwrap();
    let (shelf, file) = objects.inner.place(&address);
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(shelf).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn the_errors_of_a_full_and_of_a_read_only_disk_are_told_apart() {
    // ENOSPC, EDQUOT, EROFS, EACCES, EIO
    let named = |code| object_error(io::Error::from_raw_os_error(code));
    assert!(matches!(named(28), ObjectError::Full(_)));
    assert!(matches!(named(122), ObjectError::Full(_)));
    assert!(matches!(named(30), ObjectError::ReadOnly(_)));
    assert!(matches!(named(13), ObjectError::ReadOnly(_)));
    assert!(matches!(named(5), ObjectError::Unavailable(_)));
}

#[tokio::test]
async fn conforms() {
    let home = tempfile::tempdir().unwrap();
    let serial = AtomicU64::new(0);
    crate::conformance::objects(async |quota| {
        let path = home.path().join(serial.fetch_add(1, Ordering::Relaxed).to_string());
        FileObjects::open(DataFolder::open(&path).unwrap(), quota).unwrap()
    })
    .await;
}
