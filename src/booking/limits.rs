//! The limits of the contract, each with its unit, in one place.

/// Longest resource name and longest `booked_by`, in bytes of UTF-8.
///
/// A key of Aurora DSQL holds about 1 KiB, and both stand in index keys.
pub const NAME_BYTES_MAX: usize = 255;

/// Longest note, in bytes of UTF-8.
pub const NOTE_BYTES_MAX: usize = 1_024;

/// Longest reason of a cancellation, in bytes of UTF-8.
pub const CANCEL_REASON_BYTES_MAX: usize = 255;

/// Longest booking, in days of 24 hours: a leap year.
pub const BOOKING_DAYS_MAX: i64 = 366;

/// Shortest hold, in seconds.
pub const HOLD_SECONDS_MIN: i64 = 1;

/// Longest hold, in seconds: an hour.
pub const HOLD_SECONDS_MAX: i64 = 3_600;

/// Most members of a batch, of creates and of gets.
pub const BATCH_MEMBERS_MAX: usize = 100;

/// Most resource-days (a UTC day of one resource) that the creates of one batch may touch.
///
/// Each is a row written beside the bookings, and a transaction of Aurora DSQL writes at most 3,000
/// rows.
pub const BATCH_RESOURCE_DAYS_MAX: usize = 2_500;

/// Bookings on a page when the request does not say.
pub const PAGE_SIZE_DEFAULT: usize = 50;

/// Most bookings on a page; a request for more is taken as this.
pub const PAGE_SIZE_MAX: usize = 1_000;

/// Most resources in one availability query.
pub const AVAILABILITY_RESOURCES_MAX: usize = 50;

/// Longest window of an availability query, in days of 24 hours.
pub const AVAILABILITY_DAYS_MAX: i64 = 92;

/// Most slots that an availability query lists for one resource.
pub const AVAILABILITY_SLOTS_MAX: usize = 1_000;

/// Most bookings that one availability query may have to look at, over all its resources.
///
/// Bounds the answer to well under the 4 MiB that gRPC clients accept by default.
pub const AVAILABILITY_BOOKINGS_MAX: usize = 20_000;
