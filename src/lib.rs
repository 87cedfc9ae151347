//! Bookings of named resources over gRPC, never double-booked. This file is the map of the house.

pub mod booking;
pub mod config;
pub mod db;
pub mod store;
