//! Half-open intervals of time, and when two of them overlap.

use super::limits::BOOKING_DAYS_MAX;
use super::time::{Timestamp, UtcDay};

/// A half-open interval of time: from its start up to, not including, its end.
///
/// Never empty, and never longer than [`BOOKING_DAYS_MAX`] days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interval {
    start: Timestamp,
    end: Timestamp,
}

/// Why two instants make no interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidInterval {
    /// The end is not after the start.
    #[error("must be after start_time")]
    Empty,
    /// More than [`BOOKING_DAYS_MAX`] days lie between them.
    #[error("must be at most {BOOKING_DAYS_MAX} days after start_time")]
    TooLong,
}

const LENGTH_MICROS_MAX: i64 = BOOKING_DAYS_MAX * 86_400 * 1_000_000;

impl Interval {
    /// The interval [`start`, `end`).
    ///
    /// # Errors
    /// [`InvalidInterval`] if it would be empty or too long.
    pub fn new(start: Timestamp, end: Timestamp) -> Result<Self, InvalidInterval> {
        match end.micros() - start.micros() {
            ..=0 => Err(InvalidInterval::Empty),
            1..=LENGTH_MICROS_MAX => Ok(Self { start, end }),
            _ => Err(InvalidInterval::TooLong),
        }
    }

    /// The first instant of the interval.
    #[must_use]
    pub fn start(&self) -> Timestamp {
        self.start
    }

    /// The first instant after the interval.
    #[must_use]
    pub fn end(&self) -> Timestamp {
        self.end
    }

    /// Whether the two share an instant. Back to back they do not.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Every UTC day that the interval touches, in order.
    ///
    /// Two intervals that overlap share an instant, and so a day.
    pub fn days(&self) -> impl Iterator<Item = UtcDay> + use<> {
        self.first_day().through(self.last_day())
    }

    /// How many days that is.
    #[must_use]
    pub fn days_touched(&self) -> usize {
        let days = self.last_day().days() - self.first_day().days() + 1;
        usize::try_from(days).expect("the last day is not before the first")
    }

    /// The first of them.
    #[must_use]
    pub fn first_day(&self) -> UtcDay {
        self.start.day()
    }

    /// The last of them: that of the last instant before the end.
    #[must_use]
    pub fn last_day(&self) -> UtcDay {
        let last = Timestamp::from_micros(self.end.micros() - 1);
        last.expect("not before the start, which is in range").day()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::{Arbitrary, Gen, quickcheck};
    use std::collections::HashSet;

    /// Short intervals close together, so that overlaps and touching ends are common.
    impl Arbitrary for Interval {
        fn arbitrary(g: &mut Gen) -> Self {
            let unit = *g
                .choose(&[1, 1_000_000, 3_600_000_000, 40_000_000_000])
                .expect("not empty");
            let start = i64::from(u8::arbitrary(g) % 20) * unit;
            let length = (1 + i64::from(u8::arbitrary(g) % 6)) * unit;
            interval(start, start + length)
        }
    }

    fn interval(start: i64, end: i64) -> Interval {
        let at = |micros| Timestamp::from_micros(micros).expect("in range");
        Interval::new(at(start), at(end)).expect("valid")
    }

    fn holds(interval: &Interval, instant: i64) -> bool {
        (interval.start.micros()..interval.end.micros()).contains(&instant)
    }

    quickcheck! {
        fn overlap_is_symmetric(a: Interval, b: Interval) -> bool {
            a.overlaps(&b) == b.overlaps(&a)
        }

        fn an_interval_overlaps_itself(a: Interval) -> bool {
            a.overlaps(&a)
        }

        /// If any instant is shared, then the later of the two starts is.
        fn overlap_means_a_shared_instant(a: Interval, b: Interval) -> bool {
            let later_start = a.start.max(b.start).micros();
            a.overlaps(&b) == (holds(&a, later_start) && holds(&b, later_start))
        }

        fn back_to_back_is_no_overlap(a: Interval, length: u16) -> bool {
            let end = a.end.micros();
            !a.overlaps(&interval(end, end + 1 + i64::from(length)))
        }

        fn what_lies_inside_overlaps(a: Interval, offset: u64) -> bool {
            let length = (a.end.micros() - a.start.micros()).unsigned_abs();
            let instant = a.start.micros() + i64::try_from(offset % length).expect("short");
            a.overlaps(&interval(instant, instant + 1))
        }

        fn overlapping_intervals_share_a_day(a: Interval, b: Interval) -> bool {
            let days: HashSet<_> = a.days().collect();
            !a.overlaps(&b) || b.days().any(|day| days.contains(&day))
        }
    }

    #[test]
    fn a_day_that_only_the_excluded_end_touches_is_not_counted() {
        let midnight = 86_400 * 1_000_000;
        assert_eq!(interval(0, midnight).days().count(), 1);
        assert_eq!(interval(0, midnight + 1).days().count(), 2);
    }

    #[test]
    fn length_is_bounded() {
        let at = |micros| Timestamp::from_micros(micros).expect("in range");
        assert!(Interval::new(at(0), at(LENGTH_MICROS_MAX)).is_ok());
        let too_long = Interval::new(at(0), at(LENGTH_MICROS_MAX + 1));
        assert_eq!(too_long, Err(InvalidInterval::TooLong));
        assert_eq!(Interval::new(at(5), at(5)), Err(InvalidInterval::Empty));
        assert_eq!(Interval::new(at(5), at(4)), Err(InvalidInterval::Empty));
        assert_eq!(
            Interval::new(Timestamp::MIN, Timestamp::MAX),
            Err(InvalidInterval::TooLong)
        );
    }
}
