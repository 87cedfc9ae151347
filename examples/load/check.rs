//! What the service promised, looked up by its own API; and what the run made, deleted again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use booking_service::pb;
use futures_util::StreamExt;
use futures_util::stream;
use prost_types::Timestamp;
use tokio::time::Instant;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::calls::{Client, Made, Place, Run, interval};
use crate::run::Outcome;

/// The most that a page can have.
const PAGE_SIZE: i32 = 1_000;

/// How many calls of the check are in flight.
const IN_FLIGHT: usize = 16;

/// Cleaning up ends after this time, done or not.
const CLEAN_UP_TIME_MAX: Duration = Duration::from_secs(120);

/// What was found wrong, most of it counted only.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) bookings: usize,
    pub(crate) overlaps: usize,
    pub(crate) missing: usize,
    pub(crate) misplaced: usize,
    /// The first of each kind.
    pub(crate) examples: Vec<String>,
}

impl Findings {
    pub(crate) fn is_clean(&self) -> bool {
        self.overlaps + self.missing + self.misplaced == 0
    }

    fn note(&mut self, example: String) {
        if self.examples.len() < 10 {
            self.examples.push(example);
        }
    }
}

/// A booking as it was listed.
struct Listed {
    id: Option<Uuid>,
    resource: u32,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
}

/// Lists every resource of the run: no two bookings overlap, every acknowledged one is there.
pub(crate) async fn check(
    run: &Arc<Run>,
    clients: &[Client],
    outcome: &Outcome,
) -> Result<Findings, Status> {
    let mut findings = Findings::default();
    let mut expected: HashMap<Uuid, Place> = outcome
        .made
        .iter()
        .map(|made| (made.id, made.place))
        .collect();
    for unsure in &outcome.unsure {
        expected.remove(&unsure.id);
    }
    let resources = 0..u32::try_from(run.resources()).unwrap_or(u32::MAX);
    let mut lists = stream::iter(resources)
        .map(|resource| {
            let client = clients[resource as usize % clients.len()].clone();
            list_all(Arc::clone(run), client, resource)
        })
        .buffer_unordered(IN_FLIGHT);
    while let Some(listed) = lists.next().await {
        compare(&mut findings, &mut expected, &listed?);
    }
    findings.missing = expected.len();
    if let Some((id, place)) = expected.iter().next() {
        findings.note(format!("bookings/{id} in {place:?} is missing"));
    }
    Ok(findings)
}

fn compare(findings: &mut Findings, expected: &mut HashMap<Uuid, Place>, listed: &[Listed]) {
    findings.bookings += listed.len();
    // In order of their start, so two that overlap include two neighbours that do.
    for [a, b] in listed.windows(2).filter_map(|pair| pair.as_array::<2>()) {
        if later(b.start) < later(a.end) {
            findings.overlaps += 1;
            findings.note(format!("{:?} and {:?} overlap", a.id, b.id));
        }
    }
    for booking in listed {
        let Some((id, place)) = booking.id.and_then(|id| expected.remove_entry(&id)) else {
            continue;
        };
        let (start, end) = interval(place);
        let there = (place.resource, Some(start), Some(end));
        if there != (booking.resource, booking.start, booking.end) {
            findings.misplaced += 1;
            findings.note(format!("bookings/{id} is not in {place:?}"));
        }
    }
}

fn later(time: Option<Timestamp>) -> (i64, i32) {
    time.map_or((i64::MIN, 0), |time| (time.seconds, time.nanos))
}

async fn list_all(run: Arc<Run>, mut client: Client, resource: u32) -> Result<Vec<Listed>, Status> {
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let list = pb::ListBookingsRequest {
            resource: run.resource(resource),
            page_size: PAGE_SIZE,
            page_token,
            ..pb::ListBookingsRequest::default()
        };
        let page = client.list_bookings(run.request(list)).await?.into_inner();
        listed.extend(page.bookings.into_iter().map(|booking| Listed {
            id: id_of(&booking.name),
            resource,
            start: booking.start_time,
            end: booking.end_time,
        }));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(listed);
        }
    }
}

fn id_of(name: &str) -> Option<Uuid> {
    name.strip_prefix("bookings/")?.parse().ok()
}

/// Deletes what the run made, as far as it gets; returns how many bookings are left.
pub(crate) async fn clean_up(run: &Arc<Run>, clients: &[Client], made: &[Made]) -> usize {
    let deadline = Instant::now() + CLEAN_UP_TIME_MAX;
    let in_flight = run.options.in_flight.clamp(16, 256);
    let left = stream::iter(made.iter().enumerate())
        .map(|(number, made)| {
            let mut client = clients[number % clients.len()].clone();
            async move {
                let delete = pb::DeleteBookingRequest {
                    name: made.name(),
                    etag: String::new(),
                };
                if Instant::now() >= deadline {
                    return 1;
                }
                match client.delete_booking(run.request(delete)).await {
                    Ok(_) => 0,
                    Err(status) => usize::from(status.code() != Code::NotFound),
                }
            }
        })
        .buffer_unordered(in_flight);
    left.fold(0, async |all, left| all + left).await
}
