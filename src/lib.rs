//! Bookings of named resources over gRPC, never double-booked. This file is the map of the house.
//!
//! A request comes in through [`grpc`], is decided by [`store`] in one transaction on a connection of
//! [`db`], and is spoken of in the words of [`booking`] all along. Arrows point one way, `grpc` →
//! `store` → `db`, and all of them to `booking`. `ARCHITECTURE.md` has the reasons.
//!
//! - [`booking`]: the domain, pure: what a booking is, and which ones are valid.
//! - [`grpc`]: the edge: wire messages to the domain and back, errors to statuses, deadlines, limits,
//!   health.
//! - [`store`]: the one place with SQL: lanes, reads, the one retry loop, the schema.
//! - [`db`]: how a connection comes about: a private PostgreSQL, one by URL, or Aurora DSQL.
//! - [`server`]: puts it together on a socket it is given, and drains it when told to stop.
//! - [`config`]: the command line and its environment, parsed into typed options.
//! - [`commands`]: what the program can be asked to do: `serve`, `migrate`, `maintain`, and so on.
//! - [`telemetry`]: what it tells its operators.
//! - [`pb`]: the generated messages and clients of `proto/booking/v1`.

pub mod booking;
pub mod commands;
pub mod config;
pub mod db;
mod files;
pub mod grpc;
pub mod server;
pub mod store;
pub mod telemetry;

/// The generated code of `proto/booking/v1`: public for Rust clients, of no concern outside `grpc`.
pub mod pb {
    #![allow(
        clippy::pedantic,
        missing_docs,
        unused_qualifications,
        reason = "generated"
    )]

    tonic::include_proto!("booking.v1");

    /// The descriptors of the protos, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/booking_descriptor.bin"));
}
