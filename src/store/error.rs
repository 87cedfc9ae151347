//! What can keep a call from doing what it was asked to: said in the words of the domain.

use std::error::Error as StdError;

use crate::booking::{BookingId, Interval, InvalidInterval, Resource, State};

/// The driver's or pool's own error: for the log, never for a client.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// Why the store did not do what was asked. Unless it says otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another booking blocks the slot, or part of it.
    #[error("{resource} is taken by {by}")]
    SlotTaken {
        /// The resource of both.
        resource: Resource,
        /// The booking in the way.
        by: BookingId,
        /// When that one is.
        interval: Interval,
    },
    /// There is no such booking.
    #[error("{0} does not exist")]
    NotFound(BookingId),
    /// The booking is not one that this caller may know of: somebody else's, or none at all. Which
    /// of the two is not told.
    #[error("not a booking of the caller")]
    NotOwned,
    /// The booking has changed since the caller saw it.
    #[error("{0} has another etag by now")]
    EtagMismatch(BookingId),
    /// The booking is in a state, always a final one, that does not allow the call.
    #[error("{id} is {state:?}")]
    InvalidState {
        /// The booking.
        id: BookingId,
        /// Its state.
        state: State,
    },
    /// The new start or end does not go with what is kept of the old interval.
    #[error("the end {0}")]
    InvalidInterval(InvalidInterval),
    /// The id was used before, for a request that asked for something else.
    #[error("the request id was used for another request, which made {0}")]
    RequestIdReused(BookingId),
    /// The bookings asked about are more than one answer may hold.
    #[error("more than {max} bookings lie in the window")]
    TooMany {
        /// The most there may be.
        max: usize,
    },
    /// Other transactions won every time until the attempts were used up.
    #[error("lost to other transactions {attempts} times")]
    Contention {
        /// How often it was tried.
        attempts: u32,
        /// The last conflict.
        source: Cause,
    },
    /// Too much waits already. Nothing was executed.
    #[error("too many requests in flight")]
    Overloaded,
    /// The database is out of reach. Nothing was executed.
    #[error("the database is out of reach")]
    Unavailable {
        /// Why.
        source: Cause,
    },
    /// The caller's deadline passed. The change may have been made, or be made yet.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// Something that should not be.
    #[error("internal error")]
    Internal {
        /// What.
        source: Cause,
    },
}

impl Error {
    /// Whether it says nothing of what was asked: it met whoever asked there and then.
    pub(super) fn is_of_time_or_place(&self) -> bool {
        matches!(self, Self::DeadlineExceeded | Self::Unavailable { .. })
    }

    /// The same for another caller who was in the same boat: only the cause is cut to its text.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is left never concerns more than one caller"
    )]
    pub(super) fn for_another(&self) -> Self {
        match self {
            Self::DeadlineExceeded => Self::DeadlineExceeded,
            Self::Unavailable { source } => Self::Unavailable {
                source: source.to_string().into(),
            },
            Self::Contention { attempts, source } => Self::Contention {
                attempts: *attempts,
                source: source.to_string().into(),
            },
            Self::Overloaded => Self::Overloaded,
            other => Self::Internal {
                source: other.to_string().into(),
            },
        }
    }
}

/// Why a batch was refused as a whole: the member at fault, by its position from 0.
#[derive(Debug, thiserror::Error)]
#[error("member {index:?}: {error}")]
pub struct BatchError {
    /// Which member; `None` where the reason is not one member's.
    pub index: Option<usize>,
    /// What was wrong with it.
    pub error: Error,
}

impl From<Error> for BatchError {
    fn from(error: Error) -> Self {
        Self { index: None, error }
    }
}
