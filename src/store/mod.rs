//! Where bookings are kept: the one place with SQL. Never lets two blocking bookings overlap.

#[doc(hidden)]
pub mod bench;
mod change;
mod create;
mod error;
mod flight;
mod lane;
mod lease;
mod list;
pub mod maintain;
mod plan;
mod point_reads;
mod read;
mod retry;
mod row;
pub mod schema;
mod slot;
mod statements;
mod transition;
mod types;

use std::future::Future;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::task::JoinError;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use crate::booking::{
    Booker, Booking, BookingId, CancelReason, Change, Interval, NewBooking, Resource, Revision,
    Timestamp,
};
use crate::db::Pool;
use crate::telemetry::traces::Caller;

use lane::Lanes;
use point_reads::PointReads;
use transition::To;

pub use error::{BatchError, Cause, Error};
pub use lane::LaneOptions;
pub use statements::STATEMENTS;

/// Whether a call is to change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The real thing.
    Commit,
    /// The same work up to the commit, then a rollback: the answer is exact, nothing is changed.
    Validate,
}

/// Which bookings to list, and from where on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Only bookings of this resource.
    pub resource: Option<Resource>,
    /// Only bookings by this person.
    pub booked_by: Option<Booker>,
    /// Only bookings that end after this.
    pub start_time: Option<Timestamp>,
    /// Only bookings that start before this.
    pub end_time: Option<Timestamp>,
    /// Also those that block nobody any more.
    pub show_cancelled: bool,
    /// The most bookings to return.
    pub page_size: usize,
    /// The last booking of the page before.
    pub after: Option<Cursor>,
}

/// A place in a listing: just behind the booking of this start and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Its start, at the time it was listed.
    pub start_time: Timestamp,
    /// Its id.
    pub id: BookingId,
}

impl Cursor {
    /// The place just behind this booking.
    fn behind(booking: &Booking) -> Self {
        Self {
            start_time: booking.interval.start(),
            id: booking.id,
        }
    }
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The bookings: by start and id where a resource or a person was given, else by id.
    pub bookings: Vec<Booking>,
    /// Where the next page begins, if there can be more.
    pub next: Option<Cursor>,
}

/// The bookings of one database. Cheap to clone.
///
/// Every call takes the deadline of its caller: past it there is no further attempt. A change that
/// was begun goes through to its end even if the caller stops listening.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    lanes: Arc<Lanes>,
    reads: Arc<PointReads>,
    changes: TaskTracker,
    /// Whose bookings the calls are confined to; everybody's if nobody is named.
    owner: Option<Booker>,
}

impl Store {
    /// A store on this pool, whose connections carry [`STATEMENTS`]. Starts its lanes and readers, so
    /// it needs a Tokio runtime.
    #[must_use]
    pub fn new(pool: Pool, lanes: LaneOptions) -> Self {
        let changes = TaskTracker::new();
        let lanes = Arc::new(Lanes::start(&pool, lanes, &changes));
        let reads = Arc::new(PointReads::start(&pool));
        Self {
            pool,
            lanes,
            reads,
            changes,
            owner: None,
        }
    }

    /// The same store, confined to the bookings of `owner` if one is given.
    ///
    /// No call on it shows or touches a booking of anybody else, and none makes one for anybody
    /// else: it answers [`Error::NotOwned`], which is also its answer for a booking that does not
    /// exist. Who owns a booking is decided on the row, in the transaction that does the work. Only
    /// when a slot is taken does it say so, whoever has it.
    #[must_use]
    pub fn confined_to(&self, owner: Option<Booker>) -> Self {
        Self {
            owner,
            ..self.clone()
        }
    }

    /// Makes a booking; a repeat under the same id returns the booking that the first one made.
    ///
    /// # Errors
    /// [`Error::SlotTaken`], [`Error::RequestIdReused`], and what any call can meet.
    pub async fn create(
        &self,
        new: NewBooking,
        mode: Mode,
        deadline: Instant,
    ) -> Result<Booking, Error> {
        self.only_for_owner(Some(&new.draft().booked_by))?;
        let booking = match mode {
            Mode::Commit => in_time(deadline, self.lanes.create(new, deadline)).await,
            Mode::Validate => {
                let pool = self.pool.clone();
                let tried = async move { create::create_one(&pool, &new, mode, deadline).await };
                self.to_the_end(deadline, tried).await
            }
        };
        // A repeat finds the booking that the first request made: it may have been handed on.
        row::only_own(booking?, self.owner.as_ref())
    }

    /// Makes all of these bookings or none. No two of them may be rivals or share an id.
    ///
    /// # Errors
    /// Those of [`Store::create`], with the position of the member at fault.
    pub async fn create_batch(
        &self,
        new: Vec<NewBooking>,
        mode: Mode,
        deadline: Instant,
    ) -> Result<Vec<Booking>, BatchError> {
        let at = |index, error| BatchError {
            index: Some(index),
            error,
        };
        for (index, new) in new.iter().enumerate() {
            let allowed = self.only_for_owner(Some(&new.draft().booked_by));
            allowed.map_err(|error| at(index, error))?;
        }
        let pool = self.pool.clone();
        let made = async move { create::create_all(&pool, &new, mode, deadline).await };
        let made = self.to_the_end(deadline, made).await?.into_iter();
        made.enumerate()
            .map(|(index, booking)| {
                row::only_own(booking, self.owner.as_ref()).map_err(|error| at(index, error))
            })
            .collect()
    }

    /// Returns the booking, in whatever state.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what any call can meet.
    pub async fn get(&self, id: BookingId, deadline: Instant) -> Result<Booking, Error> {
        let found = in_time(deadline, self.reads.get(id, deadline)).await;
        row::seen_by(self.owner.as_ref(), found)
    }

    /// Returns these bookings, in this order, as they were at one moment.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the first that is missing, and what any call can meet.
    pub async fn get_batch(
        &self,
        ids: Vec<BookingId>,
        deadline: Instant,
    ) -> Result<Vec<Booking>, Error> {
        in_time(
            deadline,
            read::get(&self.pool, &ids, self.owner.as_ref(), deadline),
        )
        .await
    }

    /// Returns one page of a listing.
    ///
    /// # Errors
    /// What any call can meet.
    pub async fn list(&self, listing: Listing, deadline: Instant) -> Result<Page, Error> {
        self.only_for_owner(listing.booked_by.as_ref())?;
        let listing = Listing {
            booked_by: listing.booked_by.or_else(|| self.owner.clone()),
            ..listing
        };
        in_time(deadline, list::list(&self.pool, &listing, deadline)).await
    }

    /// Changes a booking that blocks; keeps its slot until the new one is secured.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::EtagMismatch`], [`Error::InvalidState`],
    /// [`Error::InvalidInterval`], [`Error::SlotTaken`], and what any call can meet.
    pub async fn update(
        &self,
        id: BookingId,
        change: Change,
        expected: Option<Revision>,
        mode: Mode,
        deadline: Instant,
    ) -> Result<Booking, Error> {
        self.only_for_owner(change.booked_by.as_ref())?;
        let (pool, owner) = (self.pool.clone(), self.owner.clone());
        let changed = change::change(pool, id, change, expected, mode, owner, deadline);
        self.to_the_end(deadline, changed).await
    }

    /// Makes a held booking a confirmed one; returns a confirmed one as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::EtagMismatch`], [`Error::InvalidState`], and what any call can
    /// meet.
    pub async fn confirm(
        &self,
        id: BookingId,
        expected: Option<Revision>,
        deadline: Instant,
    ) -> Result<Booking, Error> {
        let (pool, owner) = (self.pool.clone(), self.owner.clone());
        let confirmed = transition::bring(pool, id, To::Confirmed, expected, owner, deadline);
        self.to_the_end(deadline, confirmed).await
    }

    /// Cancels a booking and frees its slot; returns a cancelled one as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::EtagMismatch`], [`Error::InvalidState`], and what any call can
    /// meet.
    pub async fn cancel(
        &self,
        id: BookingId,
        reason: CancelReason,
        expected: Option<Revision>,
        deadline: Instant,
    ) -> Result<Booking, Error> {
        let (pool, owner) = (self.pool.clone(), self.owner.clone());
        let to = To::Cancelled(reason);
        let cancelled = transition::bring(pool, id, to, expected, owner, deadline);
        self.to_the_end(deadline, cancelled).await
    }

    /// Removes the record of a booking.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::EtagMismatch`], and what any call can meet.
    pub async fn delete(
        &self,
        id: BookingId,
        expected: Option<Revision>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let (pool, owner) = (self.pool.clone(), self.owner.clone());
        let deleted = transition::delete(pool, id, expected, owner, deadline);
        self.to_the_end(deadline, deleted).await
    }

    /// For each of these resources, when blocking bookings overlap the window, in order.
    ///
    /// # Errors
    /// [`Error::TooMany`], and what any call can meet.
    pub async fn taken(
        &self,
        resources: Vec<Resource>,
        window: Interval,
        deadline: Instant,
    ) -> Result<Vec<Vec<Interval>>, Error> {
        in_time(
            deadline,
            read::taken(&self.pool, &resources, window, deadline),
        )
        .await
    }

    /// Whether the database answers, with a schema that serves this code.
    ///
    /// # Errors
    /// What any call can meet; [`Error::Internal`] if the schema does not serve this code.
    pub async fn check(&self, deadline: Instant) -> Result<(), Error> {
        in_time(deadline, read::check(&self.pool, deadline)).await
    }

    /// Waits until every change that was begun has ended; there must be no new calls.
    pub async fn drain(&self) {
        self.lanes.close();
        self.changes.close();
        self.changes.wait().await;
    }

    /// Refuses what is done for somebody, or asked about somebody, whom the caller is kept from.
    fn only_for_owner(&self, booked_by: Option<&Booker>) -> Result<(), Error> {
        match (&self.owner, booked_by) {
            (Some(owner), Some(booked_by)) if owner != booked_by => Err(Error::NotOwned),
            _ => Ok(()),
        }
    }

    /// Begins a change, and sees it through to its end, whether or not its caller goes on listening.
    fn to_the_end<T, E, F>(
        &self,
        deadline: Instant,
        change: F,
    ) -> impl Future<Output = Result<T, E>> + use<T, E, F>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let task = self.changes.spawn(Caller::current().carry(change));
        let ended = task.map(|ended| {
            ended.unwrap_or_else(|panic: JoinError| {
                let source = panic.into();
                Err(Error::Internal { source }.into())
            })
        });
        in_time(deadline, ended)
    }
}

/// No `async fn`, which would have room for the work twice: its argument, and what it makes of it.
fn in_time<T, E: From<Error>>(
    deadline: Instant,
    work: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = Result<T, E>> {
    let ended = timeout_at(deadline, work);
    ended.map(|ended| ended.unwrap_or_else(|_| Err(Error::DeadlineExceeded.into())))
}
