//! Domain values to the wire.

use crate::booking::{Availability, Booking, Interval, Resource, State, Timestamp};
use crate::pb;

/// A booking, as every call answers it.
pub(super) fn booking(booking: Booking) -> pb::Booking {
    let mut wire = pb::Booking {
        name: booking.id.to_string(),
        resource: booking.resource.into(),
        start_time: Some(timestamp(booking.interval.start())),
        end_time: Some(timestamp(booking.interval.end())),
        booked_by: booking.booked_by.into(),
        state: state(&booking.state).into(),
        note: booking.note.into(),
        create_time: Some(timestamp(booking.create_time)),
        update_time: Some(timestamp(booking.update_time)),
        etag: booking.revision.to_string(),
        ..pb::Booking::default()
    };
    match booking.state {
        State::Held { expire_time } => wire.hold_expire_time = Some(timestamp(expire_time)),
        State::Cancelled { time, reason } => {
            wire.cancel_time = Some(timestamp(time));
            wire.cancel_reason = reason.into();
        }
        State::Confirmed | State::Expired => {}
    }
    wire
}

/// A state, without what belongs to it.
pub(super) fn state(state: &State) -> pb::booking::State {
    match state {
        State::Held { .. } => pb::booking::State::Held,
        State::Confirmed => pb::booking::State::Confirmed,
        State::Cancelled { .. } => pb::booking::State::Cancelled,
        State::Expired => pb::booking::State::Expired,
    }
}

/// When one resource is taken and free.
pub(super) fn availability(
    resource: Resource,
    availability: Availability,
) -> pb::ResourceAvailability {
    let wire = |intervals: Vec<Interval>| intervals.into_iter().map(interval).collect();
    pb::ResourceAvailability {
        resource: resource.into(),
        busy: wire(availability.busy),
        free: wire(availability.free),
        slots: wire(availability.slots),
    }
}

/// An instant; its `Display` is RFC 3339.
pub(super) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.to_unix();
    prost_types::Timestamp { seconds, nanos }
}

fn interval(interval: Interval) -> pb::Interval {
    pb::Interval {
        start_time: Some(timestamp(interval.start())),
        end_time: Some(timestamp(interval.end())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::booking::limits::{
        AVAILABILITY_BOOKINGS_MAX, AVAILABILITY_RESOURCES_MAX, AVAILABILITY_SLOTS_MAX,
        CANCEL_REASON_BYTES_MAX, NAME_BYTES_MAX, NOTE_BYTES_MAX, PAGE_SIZE_MAX,
    };
    use crate::booking::{Booker, BookingId, CancelReason, Note, Revision};
    use prost::Message;

    /// What gRPC clients accept by default.
    const CLIENT_BYTES_MAX: usize = 4 * 1_024 * 1_024;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros).expect("in range")
    }

    fn in_state(state: State) -> pb::Booking {
        booking(Booking {
            id: BookingId::random(),
            resource: Resource::parse("r".repeat(NAME_BYTES_MAX)).expect("valid"),
            interval: Interval::new(at(1_500_001), at(2_000_000)).expect("valid"),
            booked_by: Booker::parse("b".repeat(NAME_BYTES_MAX)).expect("valid"),
            note: Note::parse("n".repeat(NOTE_BYTES_MAX)).expect("valid"),
            state,
            create_time: Timestamp::MIN,
            update_time: Timestamp::MAX,
            revision: Revision::from(7),
        })
    }

    fn cancelled() -> State {
        let reason = CancelReason::parse("c".repeat(CANCEL_REASON_BYTES_MAX)).expect("valid");
        State::Cancelled {
            time: at(9),
            reason,
        }
    }

    #[test]
    fn hold_and_cancellation_show_only_in_their_states() {
        let expire_time = at(8);
        let held = in_state(State::Held { expire_time });
        assert_eq!(held.state(), pb::booking::State::Held);
        assert_eq!(held.hold_expire_time, Some(timestamp(expire_time)));
        assert_eq!(held.cancel_time, None);
        let gone = in_state(cancelled());
        assert_eq!(gone.state(), pb::booking::State::Cancelled);
        assert_eq!(gone.hold_expire_time, None);
        assert_eq!(gone.cancel_time, Some(timestamp(at(9))));
        assert_eq!(gone.cancel_reason.len(), CANCEL_REASON_BYTES_MAX);
        for state in [State::Confirmed, State::Expired] {
            let plain = in_state(state);
            assert_eq!(plain.hold_expire_time, None);
            assert_eq!(plain.cancel_time, None);
            assert_eq!(plain.cancel_reason, "");
        }
    }

    #[test]
    fn times_are_rfc_3339_to_the_microsecond() {
        assert_eq!(
            timestamp(at(1_500_001)).to_string(),
            "1970-01-01T00:00:01.500001Z"
        );
        assert_eq!(
            timestamp(Timestamp::MIN).to_string(),
            "0001-01-01T00:00:00Z"
        );
    }

    #[test]
    fn the_largest_answers_are_below_what_clients_accept() {
        let page = pb::ListBookingsResponse {
            bookings: vec![in_state(cancelled()); PAGE_SIZE_MAX],
            next_page_token: "t".repeat(64),
        };
        assert!(page.encoded_len() < CLIENT_BYTES_MAX);
        let widest = Interval::new(at(-60_000_000_000_000_001), at(-60_000_000_000_000_000));
        let widest = interval(widest.expect("valid"));
        let resource = pb::ResourceAvailability {
            resource: "r".repeat(NAME_BYTES_MAX),
            slots: vec![widest; AVAILABILITY_SLOTS_MAX],
            ..pb::ResourceAvailability::default()
        };
        let busy_and_free = 2 * AVAILABILITY_BOOKINGS_MAX + AVAILABILITY_RESOURCES_MAX;
        let intervals = busy_and_free * (widest.encoded_len() + 2);
        let resources = AVAILABILITY_RESOURCES_MAX * (resource.encoded_len() + 8);
        assert!(
            intervals + resources < CLIENT_BYTES_MAX,
            "{}",
            intervals + resources
        );
    }
}
