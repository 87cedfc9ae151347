//! Who gets in, and what they may do there: real sockets, real certificates, tokens signed for real.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod forged;
#[path = "../service/harness.rs"]
#[expect(dead_code, reason = "the service's own tests use more of it")]
mod harness;
mod issuer;
mod limits;
mod ownership;
#[path = "../service/postgres.rs"]
#[expect(dead_code, reason = "the service's own tests use more of it")]
mod postgres;
mod process;
mod rotation;
mod secured;
mod transport;
