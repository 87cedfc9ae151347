//! How a database connection comes about, shown on real servers.

#[path = "../support/mod.rs"]
mod support;

mod dsql;
mod embedded;
mod pool;
mod postgres;
