//! What the micro-benchmarks reach of the store. No part of its interface.

use std::collections::VecDeque;

use super::plan::{Candidate, Limits, Plan};
use crate::booking::NewBooking;

struct Waiting(NewBooking);

impl Candidate for Waiting {
    fn booking(&self) -> &NewBooking {
        &self.0
    }
}

/// Takes batches off what waits until nothing does; returns how many.
#[must_use]
pub fn plan_all(waiting: Vec<NewBooking>, members_max: usize) -> usize {
    let limits = Limits {
        members_max,
        days_max: usize::MAX,
    };
    let mut waiting: VecDeque<Waiting> = waiting.into_iter().map(Waiting).collect();
    let mut batches = 0;
    while !waiting.is_empty() {
        std::hint::black_box(Plan::of(&mut waiting, limits));
        batches += 1;
    }
    batches
}
