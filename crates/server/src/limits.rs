//! Bounds on what a stranger can make a server do: body sizes, body times, request rates.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use crate::problem::Problem;

/// What one route accepts as a body.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimit {
    /// Most bytes of a body.
    pub max_bytes: usize,
    /// Longest time until the body is complete.
    pub timeout: Duration,
}

/// Reads a whole body within its limit.
///
/// Errors: 413 before anything is read when the declared length is too large, 413 when the actual length is, 408 when it is
/// too slow, 400 when the connection breaks.
pub async fn read_body(body: Body, limit: BodyLimit) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > limit.max_bytes as u64 {
        return Err(Problem::too_large(limit.max_bytes));
    }
    tokio::time::timeout(limit.timeout, collect(body, limit.max_bytes)).await.map_err(|_| Problem::slow_body())?
}

async fn collect(mut body: Body, max_bytes: usize) -> Result<Bytes, Problem> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::malformed("the body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > max_bytes {
            return Err(Problem::too_large(max_bytes));
        }
        if whole.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// How often one key may do something: a token bucket.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Requests that may come at once.
    pub burst: u32,
    /// Requests a minute that refill the bucket.
    pub per_minute: u32,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Thousandths of a request left.
    milli: u64,
    touched_ms: u64,
}

/// Token buckets for a bounded number of keys.
///
/// Security: when the table is full and no bucket is idle, a new key is refused rather than an old one forgotten, so a flood
/// of keys cannot reset anybody's bucket.
#[derive(Debug)]
pub struct RateLimiter<K> {
    rate: Rate,
    capacity: usize,
    buckets: Mutex<BTreeMap<K, Bucket>>,
}

impl<K: Ord + Clone> RateLimiter<K> {
    /// A limiter that remembers at most `capacity` keys.
    pub fn new(rate: Rate, capacity: usize) -> Self {
        Self { rate, capacity, buckets: Mutex::new(BTreeMap::new()) }
    }

    /// Takes one request from the bucket of `key`.
    ///
    /// Errors: the seconds to wait when the bucket is empty.
    pub fn take(&self, key: &K, now_ms: u64) -> Result<(), u64> {
        let full = u64::from(self.rate.burst) * 1000;
        let mut buckets = self.buckets.lock().expect("no panic happens under this lock");
        if !buckets.contains_key(key) && buckets.len() >= self.capacity {
            buckets.retain(|_, bucket| refilled(*bucket, self.rate, now_ms) < full);
            if buckets.len() >= self.capacity {
                return Err(60);
            }
        }
        let bucket = buckets.entry(key.clone()).or_insert(Bucket { milli: full, touched_ms: now_ms });
        bucket.milli = refilled(*bucket, self.rate, now_ms);
        bucket.touched_ms = now_ms.max(bucket.touched_ms);
        if bucket.milli < 1000 {
            let missing = 1000 - bucket.milli;
            return Err((missing * 60).div_ceil(u64::from(self.rate.per_minute.max(1)) * 1000).max(1));
        }
        bucket.milli -= 1000;
        Ok(())
    }
}

fn refilled(bucket: Bucket, rate: Rate, now_ms: u64) -> u64 {
    let elapsed = now_ms.saturating_sub(bucket.touched_ms);
    let gained = elapsed.saturating_mul(u64::from(rate.per_minute)) / 60;
    bucket.milli.saturating_add(gained).min(u64::from(rate.burst) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: BodyLimit = BodyLimit { max_bytes: 4, timeout: Duration::from_secs(1) };

    #[tokio::test]
    async fn body_within_the_limit_is_read_and_one_byte_more_is_refused() {
        assert_eq!(read_body(Body::from("1234"), LIMIT).await.unwrap(), "1234");
        assert_eq!(read_body(Body::from("12345"), LIMIT).await.unwrap_err().code(), "too-large");
        let chunks = futures::stream::iter([Ok::<_, std::io::Error>("123"), Ok("45")]);
        assert_eq!(read_body(Body::from_stream(chunks), LIMIT).await.unwrap_err().code(), "too-large");
    }

    #[tokio::test]
    async fn body_that_never_ends_is_refused() {
        let endless = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        let limit = BodyLimit { timeout: Duration::from_millis(10), ..LIMIT };
        assert_eq!(read_body(Body::from_stream(endless), limit).await.unwrap_err().code(), "slow-body");
    }

    #[test]
    fn bucket_empties_and_refills() {
        let limiter = RateLimiter::new(Rate { burst: 2, per_minute: 60 }, 8);
        assert_eq!(limiter.take(&1, 0), Ok(()));
        assert_eq!(limiter.take(&1, 0), Ok(()));
        assert_eq!(limiter.take(&1, 0), Err(1));
        assert_eq!(limiter.take(&2, 0), Ok(()), "keys do not share a bucket");
        assert_eq!(limiter.take(&1, 1000), Ok(()));
        assert_eq!(limiter.take(&1, 500), Err(1), "a clock that steps back gives nothing");
    }

    #[test]
    fn full_table_refuses_new_keys_and_forgets_idle_ones() {
        let limiter = RateLimiter::new(Rate { burst: 1, per_minute: 60 }, 2);
        assert_eq!(limiter.take(&1, 0), Ok(()));
        assert_eq!(limiter.take(&2, 0), Ok(()));
        assert_eq!(limiter.take(&3, 0), Err(60));
        assert_eq!(limiter.take(&3, 2000), Ok(()), "idle buckets make room");
    }
}
