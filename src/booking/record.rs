//! A booking as it is kept, and one that is still to be made.

use std::time::Duration;

use uuid::Uuid;

use super::id::{BookingId, NAMESPACE, Revision};
use super::interval::Interval;
use super::limits::{HOLD_SECONDS_MAX, HOLD_SECONDS_MIN};
use super::text::{Booker, CancelReason, Note, Resource};
use super::time::Timestamp;

/// A booking, as the database has it at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booking {
    /// Its identity.
    pub id: BookingId,
    /// What is booked.
    pub resource: Resource,
    /// When.
    pub interval: Interval,
    /// By whom.
    pub booked_by: Booker,
    /// What else there is to say.
    pub note: Note,
    /// Where it stands, by the database's clock.
    pub state: State,
    /// When it was created.
    pub create_time: Timestamp,
    /// When a call last changed it.
    pub update_time: Timestamp,
    /// Which version of it this is.
    pub revision: Revision,
}

/// Where a booking stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Blocks its slot until it expires or is confirmed.
    Held {
        /// When the hold runs out.
        expire_time: Timestamp,
    },
    /// Booked: blocks its slot.
    Confirmed,
    /// Cancelled: blocks nobody. Final.
    Cancelled {
        /// When it was cancelled.
        time: Timestamp,
        /// Why.
        reason: CancelReason,
    },
    /// A hold that ran out: blocks nobody. Final.
    Expired,
}

impl State {
    /// Whether a booking in this state keeps others out of its slot.
    #[must_use]
    pub fn blocks(&self) -> bool {
        match self {
            Self::Held { .. } | Self::Confirmed => true,
            Self::Cancelled { .. } | Self::Expired => false,
        }
    }
}

/// How long a hold lasts: 1 second to 1 hour, in whole microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldTtl(i64);

/// A hold too short or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be between {HOLD_SECONDS_MIN} and {HOLD_SECONDS_MAX} seconds")]
pub struct InvalidHoldTtl;

impl HoldTtl {
    /// A hold of this length, cut down to the microsecond.
    ///
    /// # Errors
    /// [`InvalidHoldTtl`] if it is too short or too long.
    pub fn new(length: Duration) -> Result<Self, InvalidHoldTtl> {
        let micros = i64::try_from(length.as_micros()).map_err(|_| InvalidHoldTtl)?;
        if (HOLD_SECONDS_MIN * 1_000_000..=HOLD_SECONDS_MAX * 1_000_000).contains(&micros) {
            Ok(Self(micros))
        } else {
            Err(InvalidHoldTtl)
        }
    }

    /// The length in microseconds.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0
    }
}

/// What a client asks for when it creates a booking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// What is to be booked.
    pub resource: Resource,
    /// When.
    pub interval: Interval,
    /// By whom.
    pub booked_by: Booker,
    /// What else there is to say.
    pub note: Note,
    /// If given, a hold of this length; else confirmed at once.
    pub hold_ttl: Option<HoldTtl>,
}

/// A booking that is to be made, under an id that is fixed before the first attempt.
///
/// So an attempt that committed without the service hearing of it shows up on the next as its own
/// booking in its own slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBooking {
    id: BookingId,
    revision: Revision,
    fingerprint: Uuid,
    draft: Draft,
}

impl NewBooking {
    /// The booking that `draft` describes, to be made under this id.
    #[must_use]
    pub fn new(id: BookingId, draft: Draft) -> Self {
        Self {
            id,
            revision: Revision::random(),
            fingerprint: fingerprint(&draft),
            draft,
        }
    }

    /// The same booking, to be made under this id.
    #[must_use]
    pub fn under(self, id: BookingId) -> Self {
        Self { id, ..self }
    }

    /// The id it will have.
    #[must_use]
    pub fn id(&self) -> BookingId {
        self.id
    }

    /// The revision it will have.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// A hash of what was asked for: tells a repeated request from another under the same id.
    #[must_use]
    pub fn fingerprint(&self) -> Uuid {
        self.fingerprint
    }

    /// What was asked for.
    #[must_use]
    pub fn draft(&self) -> &Draft {
        &self.draft
    }

    /// The booking as it stands once it was made at `create_time`: held until `hold_expire_time` if it
    /// is a hold, else confirmed.
    #[must_use]
    pub fn made(&self, create_time: Timestamp, hold_expire_time: Option<Timestamp>) -> Booking {
        let Draft {
            resource,
            interval,
            booked_by,
            note,
            ..
        } = self.draft.clone();
        Booking {
            id: self.id,
            resource,
            interval,
            booked_by,
            note,
            state: hold_expire_time
                .map_or(State::Confirmed, |expire_time| State::Held { expire_time }),
            create_time,
            update_time: create_time,
            revision: self.revision,
        }
    }

    /// Whether the two cannot both be made: they overlap on one resource.
    #[must_use]
    pub fn rivals(&self, other: &Self) -> bool {
        self.draft.resource == other.draft.resource
            && self.draft.interval.overlaps(&other.draft.interval)
    }
}

/// Each field goes in with its length or at a fixed width, so no two drafts share their bytes.
fn fingerprint(draft: &Draft) -> Uuid {
    let mut bytes = Vec::with_capacity(256);
    for text in [
        draft.resource.as_str(),
        draft.booked_by.as_str(),
        draft.note.as_str(),
    ] {
        bytes.extend((text.len() as u64).to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes.extend(draft.interval.start().micros().to_be_bytes());
    bytes.extend(draft.interval.end().micros().to_be_bytes());
    bytes.extend(draft.hold_ttl.map_or(0, HoldTtl::micros).to_be_bytes());
    Uuid::new_v5(&NAMESPACE, &bytes)
}
