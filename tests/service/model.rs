//! Random sequences of calls give the same answers as a small model in memory.
//!
//! The model knows nothing of guards, probes or transactions: it looks at every booking there is.

use std::collections::HashMap;

use booking_service::pb;
use pb::booking::State;
use quickcheck::{Arbitrary, Gen, QuickCheck};
use tonic::Code;

use crate::harness::{Client, House, block_on, hour, reason_of, window};

const RESOURCES: u8 = 2;
const PEOPLE: [&str; 2] = ["ada", "grace"];
/// A hold that no sequence of calls outlives: time moves when the sequence says so.
const HOLD_SECONDS: i64 = 3_600;

/// One step of a sequence. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Create {
        wish: Wish,
        validate_only: bool,
    },
    BatchCreate(Vec<Wish>),
    Get(u8),
    BatchGet(Vec<u8>),
    Update {
        which: u8,
        change: Wish,
        mask: u8,
        stale_etag: Option<bool>,
        validate_only: bool,
    },
    Confirm {
        which: u8,
        stale_etag: Option<bool>,
    },
    Cancel {
        which: u8,
        stale_etag: Option<bool>,
    },
    Delete {
        which: u8,
        stale_etag: Option<bool>,
    },
    List {
        resource: Option<u8>,
        person: Option<u8>,
        window: Option<(u8, u8)>,
        all: bool,
        size: u8,
    },
    Availability {
        from: u8,
        length: u8,
        slot: Option<(u8, u8)>,
    },
    /// Time moves on until this hold has run out.
    Expire(u8),
}

/// What somebody wants to book.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    resource: u8,
    start: u8,
    length: u8,
    person: u8,
    note: bool,
    hold: bool,
    request: Option<u8>,
}

impl Arbitrary for Wish {
    fn arbitrary(g: &mut Gen) -> Self {
        Self {
            resource: u8::arbitrary(g) % RESOURCES,
            start: u8::arbitrary(g) % 40,
            length: u8::arbitrary(g) % 9,
            person: u8::arbitrary(g) % 2,
            note: bool::arbitrary(g),
            hold: bool::arbitrary(g),
            request: Option::<u8>::arbitrary(g).map(|n| n % 8),
        }
    }
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        let which = u8::arbitrary(g);
        // Mostly the current etag or none: a stale one ends the call early.
        let stale_etag = g
            .choose(&[None, None, Some(false), Some(true)])
            .copied()
            .flatten();
        let validate_only = u8::arbitrary(g).is_multiple_of(5);
        match u8::arbitrary(g) % 24 {
            0..=6 => Self::Create {
                wish: Wish::arbitrary(g),
                validate_only,
            },
            7..=8 => Self::BatchCreate((0..=(which % 4)).map(|_| Wish::arbitrary(g)).collect()),
            9 => Self::Get(which),
            10 => Self::BatchGet((0..=(which % 3)).map(|_| u8::arbitrary(g)).collect()),
            11..=14 => Self::Update {
                which,
                change: Wish::arbitrary(g),
                mask: u8::arbitrary(g) % 32,
                stale_etag,
                validate_only,
            },
            15 => Self::Confirm { which, stale_etag },
            16..=17 => Self::Cancel { which, stale_etag },
            18 => Self::Delete { which, stale_etag },
            19..=20 => Self::List {
                resource: Option::arbitrary(g),
                person: Option::arbitrary(g),
                window: Option::arbitrary(g),
                all: bool::arbitrary(g),
                size: 1 + u8::arbitrary(g) % 5,
            },
            21 => Self::Availability {
                from: u8::arbitrary(g) % 40,
                length: 1 + u8::arbitrary(g) % 30,
                slot: Option::<(u8, u8)>::arbitrary(g).map(|(a, b)| (1 + a % 5, 1 + b % 4)),
            },
            _ => Self::Expire(which),
        }
    }
}

/// A sequence of steps that shrinks to a shorter one.
#[derive(Clone, Debug)]
struct Steps(Vec<Step>);

impl Arbitrary for Steps {
    fn arbitrary(g: &mut Gen) -> Self {
        Self((0..60).map(|_| Step::arbitrary(g)).collect())
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let steps = self.0.clone();
        let without = move |at: usize, count: usize| {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + count).min(steps.len()));
            Self(fewer)
        };
        let length = self.0.len();
        let halves = [length / 2, length / 4, 1]
            .into_iter()
            .filter(|count| *count > 0);
        Box::new(halves.flat_map(move |count| {
            let without = without.clone();
            (0..length).step_by(count).map(move |at| without(at, count))
        }))
    }
}

/// What an answer comes to: the reason of an error, or nothing.
type Verdict = Result<(), (Code, &'static str)>;

const TAKEN: (Code, &str) = (Code::FailedPrecondition, "SLOT_UNAVAILABLE");
const INVALID: (Code, &str) = (Code::InvalidArgument, "INVALID_FIELDS");
const REUSED: (Code, &str) = (Code::InvalidArgument, "REQUEST_ID_REUSED");
const MISSING: (Code, &str) = (Code::NotFound, "BOOKING_NOT_FOUND");
const MISMATCH: (Code, &str) = (Code::Aborted, "ETAG_MISMATCH");
const WRONG_STATE: (Code, &str) = (Code::FailedPrecondition, "INVALID_STATE");
const RAN_OUT: (Code, &str) = (Code::FailedPrecondition, "HOLD_EXPIRED");

#[derive(Clone, Debug)]
struct Known {
    resource: u8,
    start: u8,
    end: u8,
    person: u8,
    note: bool,
    state: State,
    /// The booking as the service last told it; its etag, above all.
    told: pb::Booking,
    /// An etag that it had before.
    old_etag: Option<String>,
    request: Option<(u8, Wish)>,
}

impl Known {
    fn blocks(&self) -> bool {
        matches!(self.state, State::Held | State::Confirmed)
    }

    fn in_the_way(&self, resource: u8, start: u8, end: u8) -> bool {
        self.blocks() && self.resource == resource && self.start < end && start < self.end
    }
}

#[derive(Default)]
struct Model {
    /// By name; deleted ones are gone, but their names are remembered, to be asked for.
    bookings: HashMap<String, Known>,
    names: Vec<String>,
}

impl Model {
    fn name(&self, which: u8) -> String {
        match self.names.len() {
            0 => "bookings/00000000-0000-4000-8000-000000000000".to_owned(),
            count => self.names[usize::from(which) % count].clone(),
        }
    }

    fn taken(&self, resource: u8, start: u8, end: u8, but: &str) -> bool {
        let others = self.bookings.iter().filter(|(name, _)| *name != but);
        others
            .into_iter()
            .any(|(_, known)| known.in_the_way(resource, start, end))
    }

    fn by_request(&self, request: Option<u8>) -> Option<(&String, &Known)> {
        let request = request?;
        self.bookings
            .iter()
            .find(|(_, known)| known.request.as_ref().is_some_and(|(id, _)| *id == request))
    }

    /// What creating this comes to, apart from other members of its batch.
    fn create(&self, wish: &Wish) -> Verdict {
        if wish.length == 0 {
            return Err(INVALID);
        }
        if let Some((_, known)) = self.by_request(wish.request) {
            let same = known
                .request
                .as_ref()
                .is_some_and(|(_, first)| first == wish);
            return if same { Ok(()) } else { Err(REUSED) };
        }
        if self.taken(wish.resource, wish.start, wish.start + wish.length, "") {
            return Err(TAKEN);
        }
        Ok(())
    }

    fn created(&mut self, wish: &Wish, told: &pb::Booking) {
        let known = Known {
            resource: wish.resource,
            start: wish.start,
            end: wish.start + wish.length,
            person: wish.person,
            note: wish.note,
            state: if wish.hold {
                State::Held
            } else {
                State::Confirmed
            },
            told: told.clone(),
            old_etag: None,
            request: wish.request.map(|id| (id, wish.clone())),
        };
        if self.bookings.insert(told.name.clone(), known).is_none() {
            self.names.push(told.name.clone());
        }
    }

    /// A batch whose members clash is refused for that, whatever the database says.
    fn clash(wishes: &[Wish]) -> bool {
        wishes.iter().enumerate().any(|(at, a)| {
            wishes[..at].iter().any(|b| {
                let overlap = a.resource == b.resource
                    && a.start < b.start + b.length
                    && b.start < a.start + a.length;
                overlap || a.request.is_some() && a.request == b.request
            })
        })
    }

    /// The etag to send, and whether it is out of date.
    fn etag(&self, name: &str, stale: Option<bool>) -> (String, bool) {
        match (stale, self.bookings.get(name)) {
            (None, _) | (_, None) => (String::new(), false),
            (Some(false), Some(known)) => (known.told.etag.clone(), false),
            (Some(true), Some(known)) => (
                known
                    .old_etag
                    .clone()
                    .unwrap_or_else(|| "\"nonsense\"".to_owned()),
                true,
            ),
        }
    }

    fn changed(&mut self, name: &str, told: &pb::Booking) {
        let known = self.bookings.get_mut(name).expect("it was found before");
        known.old_etag = Some(std::mem::replace(&mut known.told, told.clone()).etag);
    }
}

/// Both at once: asks the service, and compares with the model.
struct Run {
    house: &'static House,
    client: Client,
    model: Model,
    /// Keeps the runs apart, which share a database.
    tag: String,
}

impl Run {
    fn resource(&self, number: u8) -> String {
        format!("{}-room-{number}", self.tag)
    }

    fn person(&self, number: u8) -> String {
        format!(
            "{}-{}",
            self.tag,
            PEOPLE[usize::from(number) % PEOPLE.len()]
        )
    }

    fn request_id(&self, number: u8) -> String {
        let name = format!("{}-{number}", self.tag);
        uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
    }

    fn booking(&self, wish: &Wish) -> pb::Booking {
        pb::Booking {
            resource: self.resource(wish.resource),
            start_time: Some(hour(wish.start.into())),
            end_time: Some(hour((wish.start + wish.length).into())),
            booked_by: self.person(wish.person),
            note: if wish.note {
                "a note".to_owned()
            } else {
                String::new()
            },
            ..pb::Booking::default()
        }
    }

    fn request(&self, wish: &Wish, validate_only: bool) -> pb::CreateBookingRequest {
        pb::CreateBookingRequest {
            booking: Some(self.booking(wish)),
            request_id: wish
                .request
                .map_or_else(String::new, |id| self.request_id(id)),
            validate_only,
            hold_ttl: wish.hold.then_some(prost_types::Duration {
                seconds: HOLD_SECONDS,
                nanos: 0,
            }),
        }
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Create {
                wish,
                validate_only,
            } => self.create(wish, *validate_only).await,
            Step::BatchCreate(wishes) => self.batch_create(wishes).await,
            Step::Get(which) => self.get(*which).await,
            Step::BatchGet(which) => self.batch_get(which).await,
            Step::Update {
                which,
                change,
                mask,
                stale_etag,
                validate_only,
            } => {
                self.update(*which, change, *mask, *stale_etag, *validate_only)
                    .await
            }
            Step::Confirm { which, stale_etag } => self.confirm(*which, *stale_etag).await,
            Step::Cancel { which, stale_etag } => self.cancel(*which, *stale_etag).await,
            Step::Delete { which, stale_etag } => self.delete(*which, *stale_etag).await,
            Step::List {
                resource,
                person,
                window,
                all,
                size,
            } => self.list(*resource, *person, *window, *all, *size).await,
            Step::Availability { from, length, slot } => {
                self.availability(*from, *length, *slot).await
            }
            Step::Expire(which) => self.expire(*which).await,
        }
    }

    async fn create(&mut self, wish: &Wish, validate_only: bool) -> Result<(), String> {
        let expected = self.model.create(wish);
        let answer = self
            .client
            .create_booking(self.request(wish, validate_only))
            .await;
        let Some(told) = agree(&expected, answer)? else {
            return Ok(());
        };
        if let Some((name, known)) = self.model.by_request(wish.request) {
            same(name, &told.name)?;
            return same(&known.told, &told);
        }
        self.matches(wish, &told)?;
        if !validate_only {
            self.model.created(wish, &told);
        }
        Ok(())
    }

    /// What was kept is what was asked for.
    fn matches(&self, wish: &Wish, told: &pb::Booking) -> Result<(), String> {
        let asked = self.booking(wish);
        let state = if wish.hold {
            State::Held
        } else {
            State::Confirmed
        };
        same(&state, &told.state())?;
        same(&wish.hold, &told.hold_expire_time.is_some())?;
        let kept = pb::Booking {
            resource: told.resource.clone(),
            start_time: told.start_time,
            end_time: told.end_time,
            booked_by: told.booked_by.clone(),
            note: told.note.clone(),
            ..pb::Booking::default()
        };
        same(&asked, &kept)
    }

    async fn batch_create(&mut self, wishes: &[Wish]) -> Result<(), String> {
        let invalid = wishes.iter().any(|wish| wish.length == 0) || Model::clash(wishes);
        let expected = if invalid {
            Err(INVALID)
        } else {
            wishes
                .iter()
                .map(|wish| self.model.create(wish))
                .find(Result::is_err)
                .unwrap_or(Ok(()))
        };
        let requests = wishes
            .iter()
            .map(|wish| self.request(wish, false))
            .collect();
        let answer = self
            .client
            .batch_create_bookings(pb::BatchCreateBookingsRequest { requests })
            .await;
        let Some(told) = agree(&expected, answer)? else {
            return Ok(());
        };
        same(&wishes.len(), &told.bookings.len())?;
        for (wish, told) in wishes.iter().zip(&told.bookings) {
            if let Some((_, known)) = self.model.by_request(wish.request) {
                same(&known.told, told)?;
            } else {
                self.matches(wish, told)?;
                self.model.created(wish, told);
            }
        }
        Ok(())
    }

    async fn get(&mut self, which: u8) -> Result<(), String> {
        let name = self.model.name(which);
        let expected = self.model.bookings.get(&name).map(|known| &known.told);
        let verdict = expected.map(|_| ()).ok_or(MISSING);
        let answer = self
            .client
            .get_booking(pb::GetBookingRequest { name: name.clone() })
            .await;
        agree(&verdict, answer)?.map_or(Ok(()), |told| same(&expected, &Some(&told)))
    }

    async fn batch_get(&mut self, which: &[u8]) -> Result<(), String> {
        let names: Vec<String> = which.iter().map(|which| self.model.name(*which)).collect();
        let expected: Option<Vec<pb::Booking>> = names
            .iter()
            .map(|name| {
                self.model
                    .bookings
                    .get(name)
                    .map(|known| known.told.clone())
            })
            .collect();
        let verdict = expected.as_ref().map(|_| ()).ok_or(MISSING);
        let answer = self
            .client
            .batch_get_bookings(pb::BatchGetBookingsRequest { names })
            .await;
        agree(&verdict, answer)?.map_or(Ok(()), |told| same(&expected, &Some(told.bookings)))
    }

    async fn update(
        &mut self,
        which: u8,
        change: &Wish,
        mask: u8,
        stale_etag: Option<bool>,
        validate_only: bool,
    ) -> Result<(), String> {
        let name = self.model.name(which);
        let (etag, stale) = self.model.etag(&name, stale_etag);
        let paths = ["resource", "start_time", "end_time", "booked_by", "note"];
        let chosen = |bit: usize| mask == 0 || mask >> bit & 1 == 1;
        let mut after = self.model.bookings.get(&name).cloned();
        if let Some(known) = &mut after {
            let new = |bit, new, old| if chosen(bit) { new } else { old };
            known.resource = new(0, change.resource, known.resource);
            known.start = new(1, change.start, known.start);
            known.end = new(2, change.start + change.length, known.end);
            known.person = new(3, change.person, known.person);
            // Without a mask, an empty note is not a populated field.
            let note = (mask == 0 && !change.note || !chosen(4)).then_some(known.note);
            known.note = note.unwrap_or(change.note);
        }
        let both_ends = chosen(1) && chosen(2) && change.length == 0;
        let expected = match &after {
            _ if both_ends => Err(INVALID),
            None => Err(MISSING),
            Some(_) if stale => Err(MISMATCH),
            Some(known) if known.state == State::Cancelled => Err(WRONG_STATE),
            Some(known) if known.state == State::Expired => Err(RAN_OUT),
            Some(known) if known.end <= known.start => Err(INVALID),
            Some(known)
                if self
                    .model
                    .taken(known.resource, known.start, known.end, &name) =>
            {
                Err(TAKEN)
            }
            Some(_) => Ok(()),
        };
        let request = pb::UpdateBookingRequest {
            booking: Some(pb::Booking {
                name: name.clone(),
                etag,
                ..self.booking(change)
            }),
            update_mask: (mask != 0).then(|| prost_types::FieldMask {
                paths: (0..5)
                    .filter(|bit| chosen(*bit))
                    .map(|bit| paths[bit].to_owned())
                    .collect(),
            }),
            validate_only,
        };
        let answer = self.client.update_booking(request).await;
        let Some(told) = agree(&expected, answer)? else {
            return Ok(());
        };
        let after = after.expect("else the service was to say that it is missing");
        same(&self.resource(after.resource), &told.resource)?;
        same(&Some(hour(after.start.into())), &told.start_time)?;
        same(&Some(hour(after.end.into())), &told.end_time)?;
        same(&self.person(after.person), &told.booked_by)?;
        same(&after.note, &!told.note.is_empty())?;
        same(&after.state, &told.state())?;
        if after.told.etag == told.etag {
            return Err("the etag did not change".to_owned());
        }
        if !validate_only {
            self.model.bookings.insert(name.clone(), after);
            self.model.changed(&name, &told);
        }
        Ok(())
    }

    async fn confirm(&mut self, which: u8, stale_etag: Option<bool>) -> Result<(), String> {
        let name = self.model.name(which);
        let (etag, stale) = self.model.etag(&name, stale_etag);
        let expected = match self.model.bookings.get(&name).map(|known| known.state) {
            None => Err(MISSING),
            Some(_) if stale => Err(MISMATCH),
            Some(State::Cancelled) => Err(WRONG_STATE),
            Some(State::Expired) => Err(RAN_OUT),
            Some(_) => Ok(()),
        };
        let request = pb::ConfirmBookingRequest {
            name: name.clone(),
            etag,
        };
        let answer = self.client.confirm_booking(request).await;
        let Some(told) = agree(&expected, answer)? else {
            return Ok(());
        };
        self.moved_to(&name, State::Confirmed, &told)
    }

    async fn cancel(&mut self, which: u8, stale_etag: Option<bool>) -> Result<(), String> {
        let name = self.model.name(which);
        let (etag, stale) = self.model.etag(&name, stale_etag);
        let expected = match self.model.bookings.get(&name).map(|known| known.state) {
            None => Err(MISSING),
            Some(_) if stale => Err(MISMATCH),
            Some(State::Expired) => Err(RAN_OUT),
            Some(_) => Ok(()),
        };
        let reason = "no longer needed".to_owned();
        let request = pb::CancelBookingRequest {
            name: name.clone(),
            etag,
            reason,
        };
        let answer = self.client.cancel_booking(request).await;
        let Some(told) = agree(&expected, answer)? else {
            return Ok(());
        };
        same(&"no longer needed", &told.cancel_reason.as_str())?;
        same(&true, &told.cancel_time.is_some())?;
        self.moved_to(&name, State::Cancelled, &told)
    }

    /// A second time it is returned as it is.
    fn moved_to(&mut self, name: &str, state: State, told: &pb::Booking) -> Result<(), String> {
        same(&state, &told.state())?;
        same(&None, &told.hold_expire_time)?;
        let known = self
            .model
            .bookings
            .get_mut(name)
            .expect("it was found before");
        if known.state == state {
            return same(&known.told, told);
        }
        known.state = state;
        self.model.changed(name, told);
        Ok(())
    }

    async fn delete(&mut self, which: u8, stale_etag: Option<bool>) -> Result<(), String> {
        let name = self.model.name(which);
        let (etag, stale) = self.model.etag(&name, stale_etag);
        let expected = match self.model.bookings.get(&name) {
            None => Err(MISSING),
            Some(_) if stale => Err(MISMATCH),
            Some(_) => Ok(()),
        };
        let request = pb::DeleteBookingRequest {
            name: name.clone(),
            etag,
        };
        if agree(&expected, self.client.delete_booking(request).await)?.is_some() {
            self.model.bookings.remove(&name);
        }
        Ok(())
    }

    async fn list(
        &mut self,
        resource: Option<u8>,
        person: Option<u8>,
        between: Option<(u8, u8)>,
        all: bool,
        size: u8,
    ) -> Result<(), String> {
        // The runs share a database: without a name, the others' bookings would be listed too.
        let resource = resource
            .or(person.is_none().then_some(0))
            .map(|n| n % RESOURCES);
        let person = person.map(|n| n % 2);
        let between = between.map(|(from, length)| (from % 40, from % 40 + 1 + length % 20));
        let mut expected: Vec<&pb::Booking> = self
            .model
            .bookings
            .values()
            .filter(|known| resource.is_none_or(|resource| known.resource == resource))
            .filter(|known| person.is_none_or(|person| known.person == person))
            .filter(|known| between.is_none_or(|(from, to)| known.start < to && from < known.end))
            .filter(|known| all || known.blocks())
            .map(|known| &known.told)
            .collect();
        expected
            .sort_by_key(|booking| (booking.start_time.map(|t| t.seconds), booking.name.clone()));
        let mut request = pb::ListBookingsRequest {
            page_size: size.into(),
            resource: resource.map_or_else(String::new, |n| self.resource(n)),
            booked_by: person.map_or_else(String::new, |n| self.person(n)),
            start_time: between.map(|(from, _)| hour(from.into())),
            end_time: between.map(|(_, to)| hour(to.into())),
            show_cancelled: all,
            ..pb::ListBookingsRequest::default()
        };
        let mut listed = Vec::new();
        loop {
            let page = self.client.list_bookings(request.clone()).await;
            let page = page
                .map_err(|status| format!("listing: {status}"))?
                .into_inner();
            if page.bookings.len() > usize::from(size) {
                return Err(format!(
                    "{} bookings on a page of {size}",
                    page.bookings.len()
                ));
            }
            listed.extend(page.bookings);
            if page.next_page_token.is_empty() {
                return same(&expected, &listed.iter().collect());
            }
            request.page_token = page.next_page_token;
        }
    }

    async fn availability(
        &mut self,
        from: u8,
        length: u8,
        slot: Option<(u8, u8)>,
    ) -> Result<(), String> {
        let to = from + length;
        let request = pb::QueryAvailabilityRequest {
            resources: (0..RESOURCES).map(|n| self.resource(n)).collect(),
            start_time: Some(hour(from.into())),
            end_time: Some(hour(to.into())),
            duration: slot.map(|(hours, _)| hours_long(hours)),
            step: slot.map(|(_, step)| hours_long(step)),
        };
        let answer = self.client.query_availability(request).await;
        let answer = answer
            .map_err(|status| format!("availability: {status}"))?
            .into_inner();
        for (resource, told) in (0..RESOURCES).zip(answer.resources) {
            let free = |hour: u8| !self.model.taken(resource, hour, hour + 1, "");
            same(&self.resource(resource), &told.resource)?;
            // Hour by hour: each is busy or free, and is told so.
            for at in from..to {
                let inside = |part: &pb::Interval| window(part).contains(&hour(at.into()).seconds);
                same(&!free(at), &told.busy.iter().any(inside))?;
                same(&free(at), &told.free.iter().any(inside))?;
            }
            let bookable: Vec<pb::Interval> = slot
                .into_iter()
                .flat_map(|(hours, step)| {
                    (from..to)
                        .step_by(step.into())
                        .map(move |at| (at, at + hours))
                })
                .filter(|(start, end)| *end <= to && (*start..*end).all(free))
                .map(|(start, end)| pb::Interval {
                    start_time: Some(hour(start.into())),
                    end_time: Some(hour(end.into())),
                })
                .collect();
            same(&bookable, &told.slots)?;
        }
        Ok(())
    }

    async fn expire(&mut self, which: u8) -> Result<(), String> {
        let name = self.model.name(which);
        let Some(known) = self.model.bookings.get_mut(&name) else {
            return Ok(());
        };
        if known.state == State::Held {
            self.house.let_expire(&name).await;
            known.state = State::Expired;
            known.told.set_state(State::Expired);
            known.told.hold_expire_time = None;
        }
        Ok(())
    }
}

fn hours_long(hours: u8) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::from(hours) * 3_600,
        nanos: 0,
    }
}

/// The service's answer if both say yes, nothing if both say the same no.
fn agree<T>(
    expected: &Verdict,
    answer: Result<tonic::Response<T>, tonic::Status>,
) -> Result<Option<T>, String> {
    match (expected, answer) {
        (Ok(()), Ok(answer)) => Ok(Some(answer.into_inner())),
        (Err((code, reason)), Err(status))
            if status.code() == *code && reason_of(&status) == *reason =>
        {
            Ok(None)
        }
        (expected, Ok(_)) => Err(format!("the model says {expected:?}, the service says yes")),
        (expected, Err(status)) => {
            Err(format!("the model says {expected:?}, the service {status}"))
        }
    }
}

fn same<T: PartialEq + std::fmt::Debug>(expected: &T, found: &T) -> Result<(), String> {
    if expected == found {
        Ok(())
    } else {
        Err(format!(
            "the model says {expected:?}, the service {found:?}"
        ))
    }
}

#[test]
fn random_sequences_of_calls_answer_as_the_model_does() {
    #[expect(clippy::needless_pass_by_value, reason = "as quickcheck calls it")]
    fn holds(steps: Steps) -> Result<bool, String> {
        block_on(async {
            let house = House::shared().await;
            let mut run = Run {
                client: house.instance().await.client(),
                tag: uuid::Uuid::new_v4().to_string(),
                model: Model::default(),
                house,
            };
            for (at, step) in steps.0.iter().enumerate() {
                let told = run.step(step).await;
                told.map_err(|why| format!("step {at}, {step:?}: {why}"))?;
            }
            Ok(true)
        })
    }
    QuickCheck::new()
        .tests(60)
        .quickcheck(holds as fn(Steps) -> Result<bool, String>);
}
