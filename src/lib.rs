//! Bookings of named resources over gRPC, never double-booked. This file is the map of the house.

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
