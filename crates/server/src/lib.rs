//! The servers of Waybill: the network shell and, on top of it, the parties' services.

pub mod authority;
pub mod backup;
#[cfg(test)]
#[path = "../../protocol/tests/common/mod.rs"]
mod case_world;
pub mod clock;
pub mod config;
pub mod costs;
pub mod files;
pub mod hospital;
pub mod limits;
pub mod mailbox;
pub mod net;
pub mod outbox;
pub mod party;
pub mod problem;
pub mod relay;
pub mod shelf;
pub mod shell;
pub mod telemetry;
pub mod witness;
