//! The command line.

use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Most calls in flight on one connection, unless connections are counted by hand: as many as the
/// service lets one have.
const CALLS_PER_CONNECTION: usize = 100;

/// Puts load on a booking service, measures how it takes it, and checks what it promised.
///
/// Without --rate every call that ends makes room for the next one (closed loop): that finds the
/// highest throughput. With --rate calls begin when they are due, whether or not earlier ones have
/// ended (open loop), and latency counts from that moment, so that time spent waiting shows: that is
/// how to find out how many requests a second a deployment answers in time.
///
/// It books resources of its own, under names that no other run uses, and deletes its bookings at
/// the end. First it checks by the API that no two of them overlap and that every booking it was
/// told of is there: if not, it exits with 1.
#[derive(Clone, Debug, Parser)]
#[command(name = "load")]
pub(crate) struct Options {
    /// What to call.
    #[arg(value_enum, default_value_t = Scenario::Spread)]
    pub(crate) scenario: Scenario,

    /// The service.
    #[arg(long, value_name = "URI", default_value = "http://127.0.0.1:50051")]
    pub(crate) address: String,

    /// Most calls in flight.
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = count)]
    pub(crate) in_flight: usize,

    /// Connections to spread the calls over; by default one for 100 calls in flight.
    #[arg(long, value_name = "COUNT", value_parser = count)]
    connections: Option<usize>,

    /// How long to measure.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,

    /// How long to put on load before that.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) warm_up: Duration,

    /// Calls to begin a second (open loop); by default as many as get answered (closed loop).
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub(crate) rate: Option<f64>,

    /// Resources to book.
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = count)]
    pub(crate) resources: usize,

    /// A resource to book instead; the bookings that it has are left alone.
    #[arg(long, value_name = "NAME")]
    pub(crate) resource: Option<String>,

    /// Creates that compete for one slot before the next slot is opened (hot).
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = count)]
    pub(crate) rivals: usize,

    /// Bookings of a resource to begin with, and on a page (list, mixed).
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = count)]
    pub(crate) page_size: usize,

    /// Deadline of each call.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,

    /// Leave the bookings there.
    #[arg(long)]
    pub(crate) keep: bool,

    /// Do not check the bookings at the end.
    #[arg(long)]
    pub(crate) no_check: bool,

    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// `CreateBooking`, each for a free slot, over all resources in turn.
    Spread,
    /// `CreateBooking` for one slot; after --rivals calls for the next one.
    Hot,
    /// `UpdateBooking`, which moves a booking to a free slot.
    Reschedule,
    /// `GetBooking`.
    Read,
    /// `ListBookings`, a page of one resource.
    List,
    /// Of twenty calls eleven are `GetBooking`, four `ListBookings`, four `CreateBooking` and one
    /// `UpdateBooking`.
    Mixed,
}

impl Options {
    pub(crate) fn connections(&self) -> usize {
        let enough = self.in_flight.div_ceil(CALLS_PER_CONNECTION);
        self.connections.unwrap_or(enough).min(self.in_flight)
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.replace('_', "").parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        _ => Err("must be a whole number from 1 to 1,000,000".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 1e6 => Ok(rate),
        _ => Err("must be above 0, and at most 1,000,000".to_owned()),
    }
}
