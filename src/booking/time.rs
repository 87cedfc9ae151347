//! Instants and days, to the microsecond that the database keeps.

use std::fmt;

/// An instant between the years 0001 and 9999, as whole microseconds since the Unix epoch.
///
/// The range is that of `google.protobuf.Timestamp`, the resolution that of PostgreSQL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// An instant outside the years 0001 to 9999, or with nanoseconds outside a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a time in the years 0001 to 9999")]
pub struct OutOfRange;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

impl Timestamp {
    /// 0001-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_135_596_800 * MICROS_PER_SECOND);
    /// The last microsecond of the year 9999.
    pub const MAX: Self = Self(253_402_300_800 * MICROS_PER_SECOND - 1);

    /// The instant `seconds` and `nanos` after the Unix epoch, cut down to the microsecond.
    ///
    /// # Errors
    /// [`OutOfRange`] outside the years 0001 to 9999, or if `nanos` is not within a second.
    pub fn from_unix(seconds: i64, nanos: i32) -> Result<Self, OutOfRange> {
        if !(0..1_000_000_000).contains(&nanos) {
            return Err(OutOfRange);
        }
        let micros = seconds
            .checked_mul(MICROS_PER_SECOND)
            .and_then(|whole| whole.checked_add(i64::from(nanos / 1_000)))
            .ok_or(OutOfRange)?;
        Self::from_micros(micros)
    }

    /// The instant `micros` microseconds after the Unix epoch.
    ///
    /// # Errors
    /// [`OutOfRange`] outside the years 0001 to 9999.
    pub fn from_micros(micros: i64) -> Result<Self, OutOfRange> {
        if (Self::MIN.0..=Self::MAX.0).contains(&micros) {
            Ok(Self(micros))
        } else {
            Err(OutOfRange)
        }
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down, and the nanoseconds above them.
    #[must_use]
    pub fn to_unix(self) -> (i64, i32) {
        let nanos = self.0.rem_euclid(MICROS_PER_SECOND) * 1_000;
        let nanos = i32::try_from(nanos).expect("below a second's 10^9 nanoseconds");
        (self.0.div_euclid(MICROS_PER_SECOND), nanos)
    }

    /// The UTC day that this instant lies in.
    #[must_use]
    pub fn day(self) -> UtcDay {
        let days = self.0.div_euclid(MICROS_PER_DAY);
        UtcDay(i32::try_from(days).expect("the years 0001 to 9999 have under 4 million days"))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}µs", self.0)
    }
}

/// A UTC day, as whole days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcDay(i32);

impl UtcDay {
    /// Days since 1970-01-01.
    #[must_use]
    pub fn days(self) -> i32 {
        self.0
    }

    /// Every day from this one to `last`, both included.
    pub fn through(self, last: Self) -> impl Iterator<Item = Self> {
        (self.0..=last.0).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    quickcheck! {
        fn finer_digits_are_rounded_down(seconds: i32, nanos: u32) -> bool {
            let nanos = i32::try_from(nanos % 1_000_000_000).expect("in range");
            let kept = Timestamp::from_unix(i64::from(seconds), nanos).expect("in range");
            kept.to_unix() == (i64::from(seconds), nanos / 1_000 * 1_000)
        }

        fn a_day_holds_its_instants(seconds: i32) -> bool {
            let seconds = i64::from(seconds);
            let day = Timestamp::from_unix(seconds, 0).expect("in range").day();
            let midnight = i64::from(day.days()) * 86_400;
            (midnight..midnight + 86_400).contains(&seconds)
        }
    }

    #[test]
    fn the_range_is_the_years_1_to_9999() {
        assert_eq!(Timestamp::from_unix(-62_135_596_800, 0), Ok(Timestamp::MIN));
        assert_eq!(
            Timestamp::from_unix(-62_135_596_801, 999_999_999),
            Err(OutOfRange)
        );
        assert_eq!(
            Timestamp::from_unix(253_402_300_799, 999_999_999),
            Ok(Timestamp::MAX)
        );
        assert_eq!(Timestamp::from_unix(253_402_300_800, 0), Err(OutOfRange));
        assert_eq!(Timestamp::from_unix(0, -1), Err(OutOfRange));
        assert_eq!(Timestamp::from_unix(0, 1_000_000_000), Err(OutOfRange));
        assert_eq!(Timestamp::from_unix(i64::MAX, 0), Err(OutOfRange));
    }

    #[test]
    fn a_day_before_1970_is_rounded_down_too() {
        let just_before = Timestamp::from_micros(-1).expect("in range");
        assert_eq!(just_before.day().days(), -1);
        assert_eq!(just_before.to_unix(), (-1, 999_999_000));
    }
}
