//! A stream that counts its bytes and gives up when nothing moves.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::counters::WireCounters;

/// Wraps a TCP or Unix stream: counts bytes both ways and fails with `TimedOut` after `idle` without any byte moving.
///
/// Security: the idle limit is what ends slow or dead connections whatever HTTP version they speak.
#[derive(Debug)]
pub struct WireStream<S> {
    inner: S,
    counters: Arc<WireCounters>,
    idle: Duration,
    last_moved: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl<S> WireStream<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, counters: Arc<WireCounters>, idle: Duration) -> Self {
        let last_moved = Instant::now();
        Self { inner, counters, idle, last_moved, alarm: Box::pin(tokio::time::sleep_until(last_moved + idle)) }
    }

    /// Called when the inner stream is pending: wakes the task at the idle deadline, or reports that it has passed.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        while self.alarm.as_mut().poll(context).is_ready() {
            let deadline = self.last_moved + self.idle;
            if deadline <= Instant::now() {
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "nothing moved on this connection"));
            }
            self.alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    fn moved_out(&mut self, result: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Ok(bytes)) => {
                self.counters.sent(bytes);
                self.last_moved = Instant::now();
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_idle(context).map(Err),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WireStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.inner).poll_read(context, buf) {
            Poll::Ready(Ok(())) => {
                self.counters.received(buf.filled().len() - before);
                self.last_moved = Instant::now();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_idle(context).map(Err),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WireStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(context, data);
        self.moved_out(result, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.moved_out(result, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_are_counted_and_a_stream_on_which_nothing_moves_fails() {
        let counters = WireCounters::shared();
        let (mut far, near) = tokio::io::duplex(64);
        let mut near = WireStream::new(near, counters.clone(), Duration::from_millis(30));
        let mut buffer = [0; 4];
        for _ in 0..3 {
            far.write_all(b"ping").await.unwrap();
            near.read_exact(&mut buffer).await.unwrap();
        }
        near.write_all(b"pong!").await.unwrap();
        let error = near.read_exact(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!((counters.counts().received_bytes, counters.counts().sent_bytes), (12, 5));
    }
}
