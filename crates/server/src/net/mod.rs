//! The network shell: TLS, an HTTP server and client with bounds on everything, and counters of bytes on the wire.
//!
//! It moves opaque parcels. Nothing here knows a protocol message, and nothing in the protocol trusts what happens here: TLS
//! is admission control and metadata hygiene (PROTOCOL section 5).

pub mod client;
pub mod counters;
mod middleware;
pub mod peer;
pub mod server;
pub mod stream;
pub mod tls;
pub mod unix;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
