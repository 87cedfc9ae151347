//! What a booking is known by: its name, the request that made it, its revision.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::text::Booker;

/// Identifies a booking for ever. Its text is the resource name `bookings/{uuid}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BookingId(Uuid);

/// Not the text of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// Not a booking's name.
    #[error("must have the form bookings/{{uuid}}, the UUID in lower case with hyphens")]
    Name,
    /// Not a UUID.
    #[error("must be a UUID")]
    RequestId,
    /// Not an etag that this service makes.
    #[error("must be an etag of the booking")]
    Etag,
}

/// The namespace of ids that are derived from a request id, and of request fingerprints.
///
/// An arbitrary constant: to change it would make the service forget every request it has seen.
pub(super) const NAMESPACE: Uuid = Uuid::from_u128(0x6d1c_6f0e_2b9c_4f55_9a5e_0b8b_5b9f_3f21);

impl BookingId {
    /// An id that nobody has yet.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The id of the booking that this request makes, the same however often it is repeated.
    #[must_use]
    pub fn of_request(request: &RequestId) -> Self {
        Self(Uuid::new_v5(&NAMESPACE, request.0.as_bytes()))
    }

    /// The same for a request of somebody who signed in: nobody comes by the booking of another by
    /// knowing the other's request id.
    #[must_use]
    pub fn of_request_by(request: &RequestId, subject: &Booker) -> Self {
        let bytes = [request.0.as_bytes(), subject.as_str().as_bytes()].concat();
        Self(Uuid::new_v5(&NAMESPACE, &bytes))
    }

    /// Whether the id comes from a request id, so that a booking can have it from an earlier request.
    #[must_use]
    pub fn is_of_request(&self) -> bool {
        self.0.get_version_num() == 5
    }

    /// The id as a UUID.
    #[must_use]
    pub fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl From<Uuid> for BookingId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for BookingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bookings/{}", self.0.hyphenated())
    }
}

impl FromStr for BookingId {
    type Err = InvalidId;

    /// Accepts the canonical form only, so that a booking has one name and no second.
    fn from_str(name: &str) -> Result<Self, InvalidId> {
        let text = name.strip_prefix("bookings/").ok_or(InvalidId::Name)?;
        let id = Self(Uuid::try_parse(text).map_err(|_| InvalidId::Name)?);
        if id.to_string() == name {
            Ok(id)
        } else {
            Err(InvalidId::Name)
        }
    }
}

/// A client's own id of a create request (AIP-155): a UUID, in whatever case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Uuid);

impl FromStr for RequestId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Uuid::try_parse(text)
            .map(Self)
            .map_err(|_| InvalidId::RequestId)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// One version of one booking. Its text is the etag (AIP-154).
///
/// Random, and chosen before the first attempt at a change: when a commit's answer is lost, the
/// next attempt knows by it whether the change is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision(i64);

impl Revision {
    /// A revision that no booking has had.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The number kept in the database.
    #[must_use]
    pub fn number(self) -> i64 {
        self.0
    }
}

impl From<i64> for Revision {
    fn from(number: i64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Revision {
    /// The etag, its quotes included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{:016x}\"", self.0)
    }
}

impl FromStr for Revision {
    type Err = InvalidId;

    fn from_str(etag: &str) -> Result<Self, InvalidId> {
        let digits = etag
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let revision = number.map(|number| Self(number.cast_signed()));
        revision
            .filter(|revision| revision.to_string() == etag)
            .ok_or(InvalidId::Etag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    quickcheck! {
        fn a_name_reads_back(bits: u128) -> bool {
            let id = BookingId(Uuid::from_u128(bits));
            id.to_string().parse() == Ok(id)
        }

        fn different_requests_make_different_bookings(a: u128, b: u128) -> bool {
            let made = |bits| BookingId::of_request(&RequestId(Uuid::from_u128(bits)));
            (a == b) == (made(a) == made(b))
        }

        fn an_etag_reads_back(number: i64) -> bool {
            let revision = Revision(number);
            revision.to_string().parse() == Ok(revision)
        }

        fn different_revisions_have_different_etags(a: i64, b: i64) -> bool {
            (a == b) == (Revision(a).to_string() == Revision(b).to_string())
        }
    }

    #[test]
    fn a_booking_has_one_name_only() {
        let name = "bookings/0a1b2c3d-0000-4000-8000-00000000000f";
        assert!(name.parse::<BookingId>().is_ok());
        for other in [
            "bookings/0A1B2C3D-0000-4000-8000-00000000000F",
            "bookings/0a1b2c3d00004000800000000000000f",
            "bookings/{0a1b2c3d-0000-4000-8000-00000000000f}",
            "0a1b2c3d-0000-4000-8000-00000000000f",
            "rooms/0a1b2c3d-0000-4000-8000-00000000000f",
            "bookings/",
            "",
        ] {
            assert_eq!(other.parse::<BookingId>(), Err(InvalidId::Name), "{other}");
        }
    }
}
