//! The Waybill protocol, without input or output: messages, checks, roles and states.
//!
//! Nothing here reads a clock, a file or a socket. Every handler is given the time, a [`Backend`] (primitives and randomness in
//! one) and what was stored, and gives back the next state and its [`migration::Effect`]s; the server commits both in one
//! transaction and only then sends. The same functions run in the server, in tests and in simulation.
//!
//! Data flows one way: `bytes -> wire::Parcel -> signed::Unverified -> signed::Signed -> role -> state and effects`.
//!
//! [`Backend`]: waybill_crypto::backend::Backend

pub mod authority;
pub mod destination;
pub mod evidence;
pub mod ids;
pub mod log;
pub mod messages;
pub mod migration;
pub mod patient;
pub mod policy;
pub mod registrar;
pub mod rejection;
pub mod sealed;
pub mod signed;
pub mod source;
pub mod trust;
pub mod wire;
