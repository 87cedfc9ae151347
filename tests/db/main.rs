//! How a database connection comes about, shown on real servers.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "clippy knows helpers outside of test functions for production code"
)]

#[path = "../support/mod.rs"]
mod support;

mod dsql;
mod embedded;
mod pool;
mod postgres;
