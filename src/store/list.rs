//! Listing bookings, page by page, at a cost that depends on the page and not on the table.

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::error::Error;
use super::row::{Common, behind, blocking_booking, blocking_columns, booking_at, booking_columns};
use super::slot::first_neighbour;
use super::statements::Prepared;
use super::{Cursor, Listing, Page, read};
use crate::booking::limits::PAGE_SIZE_MAX;
use crate::booking::{Booker, Booking, Timestamp};
use crate::db::Pool;

/// Most rows that are looked at for one page.
///
/// Where a filter has no index (a window, a state, a second name), rows can be passed over. A page
/// that has looked at this many ends, short or even empty, and the next begins there.
///
/// More than [`PAGE_SIZE_MAX`], so that a page where nothing is passed over is never cut short.
const SCAN_ROWS_MAX: i64 = 2_000;

/// The blocking rows in order of start, from their index: behind the cursor, before the end of the
/// window.
///
/// `$1`, `$2` the window, `$3`, `$4` start and id to go on behind, `$5` the key, `$6` rows to look at.
macro_rules! blocking {
    ($columns:expr, $key:literal, $from:expr, $order:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM bookings b WHERE ",
            $key,
            " AND b.state IN (1, 2) AND b.start_time >= ",
            $from,
            " AND ",
            after!(),
            " ORDER BY ",
            $order,
            " LIMIT $6::int8"
        )
    };
}

/// Behind the cursor, before the end of the window.
macro_rules! after {
    () => {
        "b.start_time >= coalesce($3::timestamptz, '-infinity') \
         AND (b.start_time, b.id) > (coalesce($3::timestamptz, '-infinity'), \
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

/// Where the blocking rows of resource `$5` begin that overlap the window. They are disjoint, so at most
/// one that starts before the window reaches into it.
macro_rules! first_in_window {
    () => {
        concat!(
            "coalesce(",
            first_neighbour!("$5", "$1::timestamptz"),
            ", '-infinity')"
        )
    };
}

/// What is usually asked for, and usually next to each other: the blocking rows from the cursor on. Not
/// all of them count: some are expired holds, and the first one may begin and end before the window.
macro_rules! next_in_order {
    ($name:literal, $other:literal, $key:literal, $from:expr, $order:literal) => {
        concat!(
            "-- ",
            $name,
            "\n",
            blocking!(blocking_columns!($other), $key, $from, $order)
        )
    };
}

/// No two blocking rows of a resource share a start, so that alone is their order.
pub(super) const BY_RESOURCE: &str = next_in_order!(
    "list_by_resource",
    "b.booked_by",
    "b.resource = $5::text",
    first_in_window!(),
    "start_time"
);

/// Without a window: with one, any number of rows would have to be passed over.
pub(super) const BY_BOOKER: &str = next_in_order!(
    "list_by_booker",
    "b.resource",
    "b.booked_by = $5::text",
    longest_before!(),
    "start_time, id"
);

/// A listing that may have to pass over many rows: of the rows `s`, in order, those that the filters
/// keep; and of a scan that was cut short its last row, as the place to go on from.
///
/// `$1`, `$2` the window, `$rows` to look at, `$show` `show_cancelled`, `$limit` rows to return.
macro_rules! scan {
    ($name:literal, $order:literal, $kept:literal, $scan:expr, $rows:literal, $show:literal, $limit:literal) => {
        concat!(
            "-- ",
            $name,
            "\n",
            "SELECT ",
            booking_columns!(),
            ", b.kept, b.position = ",
            $rows,
            " AS scan_ends FROM (SELECT s.*, ",
            "row_number() OVER (ORDER BY ",
            $order,
            ") AS position, ",
            "(s.end_time > coalesce($1::timestamptz, '-infinity') ",
            "AND s.start_time < coalesce($2::timestamptz, 'infinity') ",
            "AND (",
            $show,
            "::bool OR s.state = 2 OR s.state = 1 AND s.hold_expire_time > now()) ",
            "AND ",
            $kept,
            ") AS kept FROM (",
            $scan,
            ") s) b ",
            "WHERE b.kept OR b.position = ",
            $rows,
            " ORDER BY ",
            $order,
            " LIMIT ",
            $limit,
            "::int8"
        )
    };
}

/// The blocking rows and, if asked for, the others, each from its own index. The blocking ones are cut
/// off in the order of that index, before they are sorted.
macro_rules! blocking_and_past {
    ($key:literal, $from:expr, $order:literal) => {
        concat!(
            "(SELECT * FROM (",
            blocking!("*", $key, $from, $order),
            ") b ORDER BY start_time, id) UNION ALL (SELECT * FROM bookings b WHERE $7::bool AND ",
            $key,
            " AND b.state IN (3, 4) AND b.start_time >= ",
            longest_before!(),
            " AND ",
            after!(),
            " ORDER BY start_time, id LIMIT $6::int8) ORDER BY start_time, id LIMIT $6::int8"
        )
    };
}

/// `$9` `booked_by`.
pub(super) const SCAN_BY_RESOURCE: &str = scan!(
    "scan_by_resource",
    "start_time, id",
    "($9::text IS NULL OR s.booked_by = $9)",
    blocking_and_past!("b.resource = $5::text", first_in_window!(), "start_time"),
    "$6",
    "$7",
    "$8"
);

pub(super) const SCAN_BY_BOOKER: &str = scan!(
    "scan_by_booker",
    "start_time, id",
    "true",
    blocking_and_past!(
        "b.booked_by = $5::text",
        longest_before!(),
        "start_time, id"
    ),
    "$6",
    "$7",
    "$8"
);

/// `$3` the id to go on behind.
pub(super) const BY_NAME: &str = scan!(
    "list_by_name",
    "id",
    "true",
    "SELECT * FROM bookings b \
     WHERE b.id > coalesce($3::uuid, '00000000-0000-0000-0000-000000000000') \
     ORDER BY id LIMIT $4::int8",
    "$4",
    "$5",
    "$6"
);

/// Returns one page.
pub(super) async fn list(pool: &Pool, listing: &Listing, deadline: Instant) -> Result<Page, Error> {
    let booked_by = listing.booked_by.as_ref().map(Booker::as_str);
    let cursor_id = listing.after.map(|cursor| *cursor.id.as_uuid());
    let cursor_time = listing.after.map(|cursor| cursor.start_time);
    let page_size = listing.page_size.min(PAGE_SIZE_MAX);
    let limit = i64::try_from(page_size + 1).expect("at most a page and one");
    let window: [&(dyn ToSql + Sync); 2] = [&listing.start_time, &listing.end_time];
    let behind: [&(dyn ToSql + Sync); 2] = [&cursor_time, &cursor_id];
    let scanned: [&(dyn ToSql + Sync); 3] = [&SCAN_ROWS_MAX, &listing.show_cancelled, &limit];

    let (next_in_order, scan, common, key) = match (&listing.resource, &listing.booked_by) {
        (Some(resource), _) => (
            Prepared::ListByResource,
            Prepared::ScanByResource,
            Common::Resource(resource),
            resource.as_str(),
        ),
        (None, Some(booker)) => (
            Prepared::ListByBooker,
            Prepared::ScanByBooker,
            Common::Booker(booker),
            booker.as_str(),
        ),
        (None, None) => {
            let params = [&window[..], &[&cursor_id], &scanned].concat();
            let rows = read::rows(pool, Prepared::ListByName, &params, deadline).await?;
            return page(&rows, page_size);
        }
    };
    let from_cursor = [&window[..], &behind, &[&key]].concat();
    let few_passed_over = !listing.show_cancelled
        && match common {
            Common::Resource(_) => booked_by.is_none(),
            Common::Booker(_) => listing.start_time.is_none(),
        };
    if few_passed_over {
        // One more than a page to see that there is more, and one that may be passed over.
        let rows_max = limit + 1;
        let params = [&from_cursor[..], &[&rows_max]].concat();
        let rows = read::rows(pool, next_in_order, &params, deadline).await?;
        if let Some(page) = page_in_order(&rows, common, listing.start_time, page_size)? {
            return Ok(page);
        }
    }
    let filter: [&(dyn ToSql + Sync); 1] = [&booked_by];
    let filter = match common {
        Common::Resource(_) => &filter[..],
        Common::Booker(_) => &[],
    };
    let params = [&from_cursor[..], &scanned, filter].concat();
    page(&read::rows(pool, scan, &params, deadline).await?, page_size)
}

/// The page that these rows make, two more than it holds if there are as many; `None` if so many of
/// them do not count that it would be short.
fn page_in_order(
    rows: &[Row],
    common: Common<'_>,
    window_start: Option<Timestamp>,
    page_size: usize,
) -> Result<Option<Page>, Error> {
    let mut bookings: Vec<Booking> = Vec::with_capacity(rows.len().min(page_size));
    for row in rows {
        let booking = blocking_booking(row, common)?;
        if !booking.state.blocks() || window_start.is_some_and(|it| booking.interval.end() <= it) {
            continue;
        }
        if bookings.len() == page_size {
            let next = bookings.last().map(Cursor::behind);
            return Ok(Some(Page { bookings, next }));
        }
        bookings.push(booking);
    }
    let seen_all = rows.len() < page_size + 2;
    let next = None;
    Ok(seen_all.then_some(Page { bookings, next }))
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
        last = Some(Cursor::behind(&booking));
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
