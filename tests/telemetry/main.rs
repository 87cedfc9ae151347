//! What operators see of the service: metrics as Prometheus fetches them, traces as a collector
//! receives them, from the library and from the program itself.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "made for more tests than these")]
#[path = "../service/harness.rs"]
mod harness;
#[allow(dead_code, reason = "made for more tests than these")]
#[path = "../service/postgres.rs"]
mod postgres;

mod credentials;
mod days;
mod files;
mod metrics;
mod program;
mod scrape;
mod traces;
