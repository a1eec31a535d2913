//! The roles against each other in memory: whole migrations, and one test for every check, which alters exactly what that check
//! guards and expects exactly its code, so that a deleted check fails its test.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod authority;
mod destination;
mod ending;
mod evidence;
mod front_desk;
mod grant;
mod migration;
mod patient;
mod replay;
mod review;
mod source;
