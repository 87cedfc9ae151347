//! Listing bookings, page by page, at a cost that depends on the page and not on the table.

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::error::Error;
use super::row::{behind, booking_at, booking_columns};
use super::slot::first_neighbour;
use super::statements::Prepared;
use super::{Cursor, Listing, Page, read};
use crate::booking::limits::PAGE_SIZE_MAX;
use crate::booking::{Booker, Resource};
use crate::db::Pool;

/// Most rows that are looked at for one page.
///
/// Where a filter has no index (a window, a state, a second name), rows can be passed over. A page
/// that has looked at this many ends, short or even empty, and the next begins there.
///
/// More than [`PAGE_SIZE_MAX`], so that a page where nothing is passed over is never cut short.
const SCAN_ROWS_MAX: i64 = 2_000;

/// The end of every listing: of the rows `s`, in order, those that the filters keep; and of a scan
/// that was cut short its last row, as the place to go on from.
///
/// `$1`, `$2` the window, `$3` `show_cancelled`, `$4` the id to go on behind, `$5` rows to scan, `$6`
/// rows to return.
macro_rules! page {
    ($name:literal, $order:literal, $kept:literal, $scan:expr) => {
        concat!(
            "-- ",
            $name,
            "\n",
            "SELECT ",
            booking_columns!(),
            ", b.kept, b.position = $5 AS scan_ends FROM (SELECT s.*, ",
            "row_number() OVER (ORDER BY ",
            $order,
            ") AS position, ",
            "(s.end_time > coalesce($1::timestamptz, '-infinity') ",
            "AND s.start_time < coalesce($2::timestamptz, 'infinity') ",
            "AND ($3::bool OR s.state = 2 OR s.state = 1 AND s.hold_expire_time > now()) ",
            "AND ",
            $kept,
            ") AS kept FROM (",
            $scan,
            ") s) b ",
            "WHERE b.kept OR b.position = $5 ORDER BY ",
            $order,
            " LIMIT $6::int8"
        )
    };
}

/// The blocking rows in order of start, from their index. `$7` the start to go on behind, `$8` the key.
macro_rules! blocking {
    ($key:literal, $from:expr, $order:literal) => {
        concat!(
            "SELECT * FROM bookings b WHERE ",
            $key,
            " AND b.state IN (1, 2) AND b.start_time >= ",
            $from,
            " AND ",
            after!(),
            " ORDER BY ",
            $order,
            " LIMIT $5::int8"
        )
    };
}

/// The blocking rows and the others, each from its own index. The blocking ones are cut off in the
/// order of that index, before they are sorted.
macro_rules! blocking_and_past {
    ($key:literal, $from:expr, $order:literal) => {
        concat!(
            "(SELECT * FROM (",
            blocking!($key, $from, $order),
            ") b ORDER BY start_time, id) UNION ALL (SELECT * FROM bookings b WHERE ",
            $key,
            " AND b.state IN (3, 4) AND b.start_time >= ",
            longest_before!(),
            " AND ",
            after!(),
            " ORDER BY start_time, id LIMIT $5::int8) ORDER BY start_time, id LIMIT $5::int8"
        )
    };
}

/// Behind the cursor, before the end of the window.
macro_rules! after {
    () => {
        "b.start_time >= coalesce($7::timestamptz, '-infinity') \
         AND (b.start_time, b.id) > (coalesce($7::timestamptz, '-infinity'), \
         coalesce($4::uuid, '00000000-0000-0000-0000-000000000000')) \
         AND b.start_time < coalesce($2::timestamptz, 'infinity')"
    };
}

/// No booking is longer than 8,784 hours (366 days): none that starts earlier reaches the window.
macro_rules! longest_before {
    () => {
        "coalesce($1::timestamptz - interval '8784 hours', '-infinity')"
    };
}

/// Where the blocking rows of resource `$8` begin that overlap the window. They are disjoint, so at most
/// one that starts before the window reaches into it.
macro_rules! first_in_window {
    () => {
        concat!(
            "coalesce(",
            first_neighbour!("$8", "$1::timestamptz"),
            ", '-infinity')"
        )
    };
}

/// What blocks: no two of a resource share a start, so that alone is their order. `$9` `booked_by`.
pub(super) const BY_RESOURCE: &str = page!(
    "list_by_resource",
    "start_time",
    "($9::text IS NULL OR s.booked_by = $9)",
    blocking!("b.resource = $8::text", first_in_window!(), "start_time")
);

pub(super) const ALL_BY_RESOURCE: &str = page!(
    "list_all_by_resource",
    "start_time, id",
    "($9::text IS NULL OR s.booked_by = $9)",
    blocking_and_past!("b.resource = $8::text", first_in_window!(), "start_time")
);

pub(super) const BY_BOOKER: &str = page!(
    "list_by_booker",
    "start_time, id",
    "true",
    blocking!(
        "b.booked_by = $8::text",
        longest_before!(),
        "start_time, id"
    )
);

pub(super) const ALL_BY_BOOKER: &str = page!(
    "list_all_by_booker",
    "start_time, id",
    "true",
    blocking_and_past!(
        "b.booked_by = $8::text",
        longest_before!(),
        "start_time, id"
    )
);

pub(super) const BY_NAME: &str = page!(
    "list_by_name",
    "id",
    "true",
    "SELECT * FROM bookings b \
     WHERE b.id > coalesce($4::uuid, '00000000-0000-0000-0000-000000000000') \
     ORDER BY id LIMIT $5::int8"
);

/// Returns one page.
pub(super) async fn list(pool: &Pool, listing: &Listing, deadline: Instant) -> Result<Page, Error> {
    let resource = listing.resource.as_ref().map(Resource::as_str);
    let booked_by = listing.booked_by.as_ref().map(Booker::as_str);
    let cursor_id = listing.after.map(|cursor| *cursor.id.as_uuid());
    let cursor_time = listing.after.map(|cursor| cursor.start_time);
    let page_size = listing.page_size.min(PAGE_SIZE_MAX);
    let rows_max = i64::try_from(page_size + 1).expect("at most a page and one");
    let params: [&(dyn ToSql + Sync); 6] = [
        &listing.start_time,
        &listing.end_time,
        &listing.show_cancelled,
        &cursor_id,
        &SCAN_ROWS_MAX,
        &rows_max,
    ];
    let rows = match (&resource, &booked_by) {
        (Some(resource), booked_by) => {
            let params = [params.as_slice(), &[&cursor_time, resource, booked_by]].concat();
            let prepared = if listing.show_cancelled {
                Prepared::ListAllByResource
            } else {
                Prepared::ListByResource
            };
            read::rows(pool, prepared, &params, deadline).await?
        }
        (None, Some(booked_by)) => {
            let params = [params.as_slice(), &[&cursor_time, booked_by]].concat();
            let prepared = if listing.show_cancelled {
                Prepared::ListAllByBooker
            } else {
                Prepared::ListByBooker
            };
            read::rows(pool, prepared, &params, deadline).await?
        }
        (None, None) => read::rows(pool, Prepared::ListByName, &params, deadline).await?,
    };
    page(&rows, page_size)
}

/// Up to `page_size` bookings. There can be more if a row comes after them, or if the scan ended
/// before its time.
fn page(rows: &[Row], page_size: usize) -> Result<Page, Error> {
    let mut bookings = Vec::with_capacity(rows.len().min(page_size));
    let mut last = None;
    for row in rows {
        if bookings.len() == page_size {
            return Ok(Page {
                bookings,
                next: last,
            });
        }
        let booking = booking_at(row, 0)?;
        last = Some(Cursor {
            start_time: booking.interval.start(),
            id: booking.id,
        });
        if behind::<bool>(row, 0, 0)? {
            bookings.push(booking);
        }
        if behind::<bool>(row, 0, 1)? {
            return Ok(Page {
                bookings,
                next: last,
            });
        }
    }
    Ok(Page {
        bookings,
        next: None,
    })
}
