//! The service, tested through its front door: real sockets, a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod contention;
mod errors;
mod flights;
mod guards;
mod harness;
mod holds;
mod lost_reply;
mod model;
mod pages;
mod plans;
mod postgres;
mod soak;
