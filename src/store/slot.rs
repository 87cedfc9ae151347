//! What keeps a slot to one booking, as fragments of SQL that every taker of time shares.
//!
//! The takers are creates and reschedules. Each runs, in one transaction at snapshot isolation:
//!
//! 1. *guards*: writes the row of every UTC day that the new interval `n` touches. Two overlapping
//!    intervals share a day, so both write one row, and the database lets only one of two concurrent
//!    writers commit: the write skew of "check, then insert" has become a write conflict.
//! 2. *clear*: marks the expired holds that lie in the slot, so that blocking rows stay disjoint.
//! 3. the insert or update itself, only where the slot is free and the guards were taken.
//!
//! Blocking rows (state 1, HELD, and 2, CONFIRMED) of a resource are pairwise disjoint, so in the
//! order of their start they are in the order of their end. The bookings that overlap an interval are
//! therefore neighbours in the index, however long the history: none lies before the last one that
//! starts at or before the interval's start.

/// The start of the first blocking row of resource `$resource` that can reach into an interval
/// beginning at `$start`: the last one that starts no later. NULL if there is none.
macro_rules! first_neighbour {
    ($resource:literal, $start:literal) => {
        concat!(
            "(SELECT p.start_time FROM bookings p WHERE p.resource = ",
            $resource,
            " AND p.state IN (1, 2) AND p.start_time <= ",
            $start,
            " ORDER BY p.start_time DESC LIMIT 1)"
        )
    };
}
pub(super) use first_neighbour;

/// That row `$row` is among the blocking rows that overlap the slot of `n`.
macro_rules! in_slot {
    ($row:literal) => {
        concat!(
            $row,
            ".resource = n.resource AND ",
            $row,
            ".state IN (1, 2) AND ",
            $row,
            ".start_time < n.end_time AND ",
            $row,
            ".start_time >= coalesce(",
            $crate::store::slot::first_neighbour!("n.resource", "n.start_time"),
            ", n.start_time) AND ",
            $row,
            ".end_time > n.start_time"
        )
    };
}
pub(super) use in_slot;

/// That no blocking row at all lies in the slot of `n`, not even an expired hold.
///
/// Cheaper than [`blocker`], and all that has to be asked where there are no expired holds: of the rows
/// that begin before the slot's end, the last one ends last. It is looked for close by at first, eight
/// times as far back as the slot is long, and only if there is none there in all that was before:
/// PostgreSQL reads all entries of a page of the index that are in the range, even if one is wanted.
macro_rules! vacant {
    () => {
        concat!(
            "coalesce(coalesce(",
            $crate::store::slot::last_end!(
                " AND p.start_time >= n.start_time - 8 * (n.end_time - n.start_time)"
            ),
            ", ",
            $crate::store::slot::last_end!(""),
            ") <= n.start_time, true)"
        )
    };
}
pub(super) use vacant;

/// The end of the last blocking row of the resource that begins before the slot's end, and `$from`.
macro_rules! last_end {
    ($from:literal) => {
        concat!(
            "(SELECT p.end_time FROM bookings p WHERE p.resource = n.resource \
             AND p.state IN (1, 2) AND p.start_time < n.end_time",
            $from,
            " ORDER BY p.start_time DESC LIMIT 1)"
        )
    };
}
pub(super) use last_end;

/// The id of a booking that keeps `n` out of its slot, NULL if the slot is free. A booking does not
/// keep itself out, and an expired hold keeps out nobody.
///
/// With the name of an expired hold it is asked of that hold, once it is found: the database would
/// otherwise answer it first, for every `n`.
macro_rules! blocker {
    () => {
        $crate::store::slot::blocker!(@ "")
    };
    ($hold:literal) => {
        $crate::store::slot::blocker!(@ " AND b.id <> ", $hold, ".id")
    };
    (@ $($but:literal),*) => {
        concat!(
            "(SELECT b.id FROM bookings b WHERE ",
            $crate::store::slot::in_slot!("b"),
            " AND (b.state = 2 OR b.hold_expire_time > now()) AND b.id <> n.id",
            $($but,)*
            " ORDER BY b.start_time DESC LIMIT 1)"
        )
    };
}
pub(super) use blocker;

/// That the guard of the first day of `n` was written by this very transaction.
///
/// The statements of a flight are sent without waiting for each other. Should BEGIN itself fail, the
/// others would run each in a transaction of its own, and guard nothing; then this does not hold,
/// because `now()` is the time at which the transaction began.
macro_rules! guarded {
    () => {
        "(SELECT g.touch_time FROM booking_guards g WHERE g.resource = n.resource \
         AND g.day = (n.start_time AT TIME ZONE 'UTC')::date) = now()"
    };
}
pub(super) use guarded;
