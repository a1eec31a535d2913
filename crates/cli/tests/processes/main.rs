//! The binary as its users meet it: real processes, real sockets, real files.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene shall say where")]

mod authority;
mod commands;
mod common;
mod demo;
mod hospital;
#[cfg(target_os = "linux")]
mod orphans;
mod patient;
mod phoneless;
mod scene;
mod walkthrough;
