//! The statements of a create, each for a whole batch.

use crate::store::row::booking_columns;
use crate::store::slot::{blocker, in_slot, vacant};

/// The members of a batch, as a table `n`.
macro_rules! members {
    () => {
        "unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::timestamptz[]) \
         AS n(id, resource, start_time, end_time)"
    };
}

/// That `n` was made before: this is a repeat. No `EXISTS`, which is planned as a join: on a table that
/// is small at that moment, one that reads all of it.
macro_rules! repeated {
    () => {
        "((SELECT o.id FROM bookings o WHERE o.id = n.id) IS NOT NULL)"
    };
}

/// In key order, so that two batches cannot wait for each other in a circle.
///
/// `$6`: 0, 1, 2 … for as many days as the longest member touches.
pub(in crate::store) const GUARDS: &str = concat!(
    "-- create_guards\n",
    "INSERT INTO booking_guards AS g (resource, day, touch_time) ",
    "SELECT DISTINCT n.resource, n.first_day + d.day, now() ",
    "FROM (SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::date[], \
     $5::date[]) AS n(resource, start_time, end_time, first_day, last_day) WHERE ",
    vacant!(),
    " OFFSET 0) n JOIN unnest($6::int4[]) AS d(day) ON d.day <= n.last_day - n.first_day ",
    "ORDER BY 1, 2 ",
    "ON CONFLICT (resource, day) DO UPDATE SET touch_time = excluded.touch_time"
);

/// Member by member: `OFFSET 0` keeps the planner from beginning with all bookings instead, which it
/// likes to do while there are few, and a statement is planned once for many. That a hold is in the
/// slot is looked at first, since there hardly ever is one. The order makes it take the index that has
/// that order: on a table that is empty when it is planned, it would as soon take one by person.
///
/// `IS NOT TRUE` keeps the planner from going through all expired holds there are, by the index on
/// their time, instead of the few rows in the slot.
pub(in crate::store) const CLEAR: &str = concat!(
    "-- create_clear\n",
    "UPDATE bookings x SET state = 4 WHERE x.id = ANY (ARRAY(SELECT h.id FROM ",
    members!(),
    " CROSS JOIN LATERAL (SELECT h.id FROM bookings h WHERE ",
    in_slot!("h"),
    " AND h.state = 1 AND (h.hold_expire_time > now()) IS NOT TRUE AND NOT ",
    repeated!(),
    " AND ",
    blocker!("h"),
    " IS NULL ORDER BY h.start_time OFFSET 0) h))"
);

/// That a guard of the batch was written by this very transaction: then all are that had to be, since
/// one statement writes them. Asked once, and of a few members, until one of them has its guard.
///
/// The statements of a flight are sent without waiting for each other. Should BEGIN itself fail, the
/// others would run each in a transaction of its own, and guard nothing; then this does not hold,
/// because `now()` is the time at which the transaction began.
macro_rules! batch_guarded {
    () => {
        "(SELECT true FROM unnest($2::text[], $10::date[]) AS d(resource, day) \
         CROSS JOIN LATERAL (SELECT g.day FROM booking_guards g WHERE g.resource = d.resource \
         AND g.day = d.day AND g.touch_time = now() OFFSET 0) g LIMIT 1)"
    };
}

/// Makes the members that `$which` lets be made, and returns them.
///
/// A repeat is left out beforehand. `ON CONFLICT` would do that too, at the price of a second look at
/// the key and a second record in the log for each row; two requests with one id that run at once meet
/// as a conflict, and the one that is tried again finds itself a repeat.
macro_rules! insert {
    ($name:literal, $which:expr) => {
        concat!(
            "-- ",
            $name,
            "\n",
            "INSERT INTO bookings (id, resource, start_time, end_time, booked_by, note, state, \
             hold_expire_time, create_time, update_time, revision, fingerprint) ",
            "SELECT n.id, n.resource, n.start_time, n.end_time, n.booked_by, n.note, ",
            "CASE WHEN n.hold_micros IS NULL THEN 2 ELSE 1 END, ",
            "now() + n.hold_micros * interval '1 microsecond', now(), now(), n.revision, \
             n.fingerprint ",
            "FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::text[], \
             $6::text[], $7::int8[], $8::int8[], $9::uuid[]) ",
            "AS n(id, resource, start_time, end_time, booked_by, note, hold_micros, revision, \
             fingerprint) ",
            "WHERE ",
            batch_guarded!(),
            " AND ",
            $which,
            " AND NOT ",
            repeated!(),
            " RETURNING id, create_time, hold_expire_time"
        )
    };
}

/// Each for itself.
pub(in crate::store) const INSERT: &str = insert!("create_insert", vacant!());

/// All or none. Of its own, since the other one is run for every single booking, and what a statement
/// never asks it still has to set up.
pub(in crate::store) const INSERT_ALL: &str = insert!(
    "create_insert_all",
    concat!(
        "(SELECT bool_and(coalesce((SELECT o.fingerprint = n.fingerprint FROM bookings o \
         WHERE o.id = n.id), ",
        vacant!(),
        ")) FROM unnest($1, $2, $3, $4, $9) AS n(id, resource, start_time, end_time, fingerprint)) \
         AND ",
        vacant!()
    )
);

/// For each member that was not made just now: its own row from an earlier attempt, else the row in
/// its way. One by one, which `LIMIT` makes sure of. None for a member in whose way there are only
/// expired holds.
pub(in crate::store) const OUTCOME: &str = concat!(
    "-- create_outcome\n",
    "SELECT n.id, ",
    booking_columns!(),
    ", b.fingerprint FROM (SELECT * FROM ",
    members!(),
    " WHERE (SELECT o.create_time FROM bookings o WHERE o.id = n.id) IS DISTINCT FROM now() \
     OFFSET 0) n",
    " CROSS JOIN LATERAL (SELECT * FROM bookings b WHERE ",
    "b.id = coalesce((SELECT o.id FROM bookings o WHERE o.id = n.id), ",
    blocker!(),
    ") LIMIT 1) b"
);
