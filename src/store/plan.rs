//! Which of the creates that wait can share a transaction. Pure.

use std::collections::{HashMap, VecDeque};

use crate::booking::{BookingId, NewBooking, Resource};

/// Something that wants a booking made.
pub(super) trait Candidate {
    /// The booking.
    fn booking(&self) -> &NewBooking;
}

/// How large a batch may get.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most bookings.
    pub(super) members_max: usize,
    /// Most resource-days, unless a single booking has more.
    pub(super) days_max: usize,
}

/// A batch, and those that have to wait for the fate of one of its members.
pub(super) struct Plan<T> {
    /// No two of them rivals, no two with one id.
    pub(super) batch: Vec<T>,
    /// Each with the index of the member that it clashes with.
    pub(super) followers: Vec<(T, usize)>,
}

impl<T: Candidate> Plan<T> {
    /// Takes a batch off what waits, first come, first served, and with it all that clash with a
    /// member. The others are left, in their order.
    pub(super) fn of(waiting: &mut VecDeque<T>, limits: Limits) -> Self {
        let mut plan = Self {
            batch: Vec::new(),
            followers: Vec::new(),
        };
        let mut members = Members::default();
        let mut days = 0;
        for candidate in std::mem::take(waiting) {
            let new = candidate.booking();
            let clash = members
                .like(new)
                .find(|at| clash(plan.batch[*at].booking(), new));
            let new_days = new.draft().interval.days_touched();
            if let Some(leader) = clash {
                plan.followers.push((candidate, leader));
            } else if plan.batch.is_empty()
                || plan.batch.len() < limits.members_max && days + new_days <= limits.days_max
            {
                members.add(new, plan.batch.len());
                days += new_days;
                plan.batch.push(candidate);
            } else {
                waiting.push_back(candidate);
            }
        }
        plan
    }
}

/// The members of a batch by what they could clash about.
#[derive(Default)]
struct Members {
    by_resource: HashMap<Resource, Vec<usize>>,
    by_id: HashMap<BookingId, usize>,
}

impl Members {
    fn add(&mut self, new: &NewBooking, at: usize) {
        self.by_resource
            .entry(new.draft().resource.clone())
            .or_default()
            .push(at);
        self.by_id.insert(new.id(), at);
    }

    fn like(&self, new: &NewBooking) -> impl Iterator<Item = usize> {
        let same_resource = self
            .by_resource
            .get(&new.draft().resource)
            .into_iter()
            .flatten();
        self.by_id
            .get(&new.id())
            .into_iter()
            .chain(same_resource)
            .copied()
    }
}

/// Not both in one batch: rivals would not see each other, and an id can be made once.
pub(super) fn clash(a: &NewBooking, b: &NewBooking) -> bool {
    a.id() == b.id() || a.rivals(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::booking::{Booker, Draft, Interval, Note, Timestamp};
    use quickcheck::{Arbitrary, Gen, quickcheck};

    #[derive(Clone, Debug)]
    struct Wish(NewBooking);

    impl Candidate for Wish {
        fn booking(&self) -> &NewBooking {
            &self.0
        }
    }

    /// Few resources, few hours and few ids, so that clashes of every kind are common.
    impl Arbitrary for Wish {
        fn arbitrary(g: &mut Gen) -> Self {
            let hour = |n: i64| Timestamp::from_micros(n * 3_600_000_000).expect("in range");
            let start = i64::from(u8::arbitrary(g) % 60);
            let end = start + 1 + i64::from(u8::arbitrary(g) % 40);
            let id = uuid::Uuid::from_u128(u128::from(u8::arbitrary(g) % 50));
            Self(NewBooking::new(
                BookingId::from(id),
                Draft {
                    resource: Resource::parse(format!("room-{}", u8::arbitrary(g) % 3))
                        .expect("valid"),
                    interval: Interval::new(hour(start), hour(end)).expect("valid"),
                    booked_by: Booker::parse("ada").expect("valid"),
                    note: Note::parse("").expect("valid"),
                    hold_ttl: None,
                },
            ))
        }
    }

    const LIMITS: Limits = Limits {
        members_max: 5,
        days_max: 9,
    };

    fn plan(wishes: &[Wish]) -> (Plan<Wish>, VecDeque<Wish>) {
        let mut waiting: VecDeque<_> = wishes.iter().cloned().collect();
        (Plan::of(&mut waiting, LIMITS), waiting)
    }

    fn days(batch: &[Wish]) -> usize {
        batch
            .iter()
            .map(|wish| wish.0.draft().interval.days_touched())
            .sum()
    }

    quickcheck! {
        fn no_two_in_a_batch_clash(wishes: Vec<Wish>) -> bool {
            let batch = plan(&wishes).0.batch;
            batch.iter().enumerate().all(|(at, a)| batch[..at].iter().all(|b| !clash(&a.0, &b.0)))
        }

        fn a_follower_clashes_with_its_leader(wishes: Vec<Wish>) -> bool {
            let Plan { batch, followers } = plan(&wishes).0;
            followers.iter().all(|(follower, leader)| clash(&follower.0, &batch[*leader].0))
        }

        fn nobody_is_lost(wishes: Vec<Wish>) -> bool {
            let (Plan { batch, followers }, left) = plan(&wishes);
            batch.len() + followers.len() + left.len() == wishes.len()
        }

        fn a_batch_keeps_its_limits(wishes: Vec<Wish>) -> bool {
            let batch = plan(&wishes).0.batch;
            batch.len() <= LIMITS.members_max && (batch.len() == 1 || days(&batch) <= LIMITS.days_max)
        }

        fn whoever_is_first_goes_first(wishes: Vec<Wish>) -> bool {
            let batch = plan(&wishes).0.batch;
            wishes.is_empty() || batch[0].0 == wishes[0].0
        }
    }
}
