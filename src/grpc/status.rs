//! Errors to statuses: the one place where an error gets its code, its reason and its details.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};
use uuid::Uuid;

use crate::booking::{BookingId, Interval, RequestId, Resource, State};
use crate::pb::ErrorReason;
use crate::store;

use super::answer::Answer;
use super::encode;
use super::parse::half_interval;
use super::refusals;
use super::violations::Violations;

/// When a call that lost to other transactions may be worth another try, in milliseconds.
const CONTENTION_RETRY_MS: u64 = 50;
/// When a service that had too much in flight may take a call, in milliseconds.
const OVERLOADED_RETRY_MS: u64 = 200;
/// When a database that is out of reach may be back, in milliseconds.
const UNAVAILABLE_RETRY_MS: u64 = 1_000;

/// Everything that can end a call but its success.
#[derive(Debug)]
pub(super) enum Error {
    /// The request breaks rules.
    Invalid(Violations),
    /// The request could not even be read: too large, or not the message it should be.
    Unreadable(String),
    /// The page token was not made for this listing.
    PageToken,
    /// No credential, or one that does not hold: why, as far as the client may know.
    Unauthenticated(&'static str),
    /// The credential lacks this scope.
    ScopeMissing(Arc<str>),
    /// The caller makes more calls than allowed, until then.
    TooFast(Duration),
    /// The store did not do it.
    Store(store::Error, Context),
}

/// What a request says that the store's error does not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Context {
    /// The member of the batch that is at fault.
    pub(super) index: Option<usize>,
    /// The client's id of the request.
    pub(super) request_id: Option<RequestId>,
    /// Whether an update had a new start.
    pub(super) start_given: bool,
    /// Whether the caller may know of its own bookings only.
    pub(super) confined: bool,
}

impl Error {
    /// What kept a batch from being made; `request_ids` are those of its members.
    pub(super) fn of_member(refusal: store::BatchError, request_ids: &[Option<RequestId>]) -> Self {
        let store::BatchError { index, error } = refusal;
        let request_id = index.and_then(|index| *request_ids.get(index)?);
        let context = Context {
            index,
            request_id,
            ..Context::default()
        };
        Self::Store(error, context)
    }

    /// The same, as a caller with [`Context::confined`] is told of it.
    pub(super) fn told(mut self, confined: bool) -> Self {
        if let Self::Store(_, context) = &mut self {
            context.confined = confined;
        }
        self
    }
}

impl From<Violations> for Error {
    fn from(violations: Violations) -> Self {
        Self::Invalid(violations)
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(error, Context::default())
    }
}

impl From<Violations> for Status {
    fn from(violations: Violations) -> Self {
        Error::from(violations).into()
    }
}

impl From<store::Error> for Status {
    fn from(error: store::Error) -> Self {
        Error::from(error).into()
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(violations) => invalid(violations),
            Error::Unreadable(why) => invalid(Violations::of("", why)),
            Error::PageToken => Answer::new(
                Code::InvalidArgument,
                ErrorReason::PageTokenInvalid,
                "the page token was not made for these arguments: start again without one",
            )
            .into(),
            Error::Unauthenticated(why) => {
                Answer::new(Code::Unauthenticated, ErrorReason::Unauthenticated, why).into()
            }
            Error::ScopeMissing(scope) => denied(format!("the call takes the scope {scope}"))
                .with("scope", &scope)
                .into(),
            Error::TooFast(wait) => Answer::new(
                Code::ResourceExhausted,
                ErrorReason::Overloaded,
                "too many calls from this caller",
            )
            .retry_after(
                2 * u64::try_from(wait.as_millis())
                    .unwrap_or(u64::MAX / 8)
                    .max(10),
            )
            .into(),
            Error::Store(error, context) => {
                let mut answer = of_store(&error, context);
                if let Some(index) = context.index {
                    answer = answer.with("index", &index);
                }
                answer.into()
            }
        }
    }
}

/// The status of what the store reports.
fn of_store(error: &store::Error, context: Context) -> Answer {
    use store::Error as E;
    let message = || error.to_string();
    match error {
        E::SlotTaken {
            resource,
            by,
            interval,
        } => taken(resource, *interval, (!context.confined).then_some(*by)),
        E::NotOwned => denied("not a booking of the caller, who may not act for others"),
        E::NotFound(id) => Answer::new(Code::NotFound, ErrorReason::BookingNotFound, message())
            .resource(*id)
            .with("name", id),
        E::EtagMismatch(id) => Answer::new(Code::Aborted, ErrorReason::EtagMismatch, message())
            .never_retry()
            .with("name", id),
        E::InvalidState { id, state } => invalid_state(*id, state),
        E::InvalidInterval(reason) => invalid_fields(half_interval(context.start_given, *reason)),
        E::RequestIdReused(_) => reused(context.request_id),
        E::TooMany { max } => invalid_fields(Violations::of(
            "resources",
            format_args!("have more than {max} bookings in the window: ask about fewer, or less"),
        )),
        E::Contention { attempts, source } => {
            let cause = format!(
                "lost {attempts} times to other transactions; if this lasts, find the resource that \
                 everybody books and spread its calls: {}",
                chain(&**source)
            );
            Answer::new(Code::Aborted, ErrorReason::Contention, message())
                .retry_after(CONTENTION_RETRY_MS)
                .because(cause)
        }
        E::Overloaded => {
            refusals::add();
            Answer::new(Code::ResourceExhausted, ErrorReason::Overloaded, message())
                .retry_after(OVERLOADED_RETRY_MS)
        }
        E::Unavailable { source } => {
            let cause = format!(
                "the database is out of reach; check that it runs, its address and its credentials: {}",
                chain(&**source)
            );
            Answer::new(
                Code::Unavailable,
                ErrorReason::DatabaseUnavailable,
                message(),
            )
            .retry_after(UNAVAILABLE_RETRY_MS)
            .because(cause)
        }
        E::DeadlineExceeded => Answer::new(
            Code::DeadlineExceeded,
            ErrorReason::DeadlineExceeded,
            "the deadline passed; the outcome can be unknown: repeat with the same request_id",
        ),
        E::Internal { source } => internal(&**source),
    }
}

fn denied(message: impl Into<String>) -> Answer {
    Answer::new(
        Code::PermissionDenied,
        ErrorReason::PermissionDenied,
        message,
    )
}

/// A slot that is taken: by which booking, only where the caller may know.
fn taken(resource: &Resource, interval: Interval, by: Option<BookingId>) -> Answer {
    let message = by.map_or_else(
        || format!("{resource} is taken"),
        |by| format!("{resource} is taken by {by}"),
    );
    let answer = Answer::new(
        Code::FailedPrecondition,
        ErrorReason::SlotUnavailable,
        message,
    )
    .precondition(resource, "the slot, or part of it, is taken")
    .with("resource", resource)
    .with("conflict_start_time", &encode::timestamp(interval.start()))
    .with("conflict_end_time", &encode::timestamp(interval.end()));
    match by {
        Some(by) => answer.with("conflict", &by),
        None => answer,
    }
}

fn invalid(violations: Violations) -> Status {
    invalid_fields(violations).into()
}

fn invalid_fields(violations: Violations) -> Answer {
    let (kept, left_off) = violations.into_answer();
    let message = match kept.as_slice() {
        [] => "the request is invalid".to_owned(),
        [only] if left_off == 0 => format!("{} {}", only.field, only.description),
        [first, others @ ..] => {
            let more = others.len() + left_off;
            format!(
                "{} {}; {more} more in the details",
                first.field, first.description
            )
        }
    };
    let mut answer = Answer::new(
        Code::InvalidArgument,
        ErrorReason::InvalidFields,
        message.trim_start(),
    )
    .violations(kept);
    if left_off > 0 {
        answer = answer.with("violations_left_off", &left_off);
    }
    answer
}

fn invalid_state(id: BookingId, state: &State) -> Answer {
    let state = encode::state(state);
    let name = state.as_str_name();
    let (reason, message) = match state {
        crate::pb::booking::State::Expired => (
            ErrorReason::HoldExpired,
            format!("the hold {id} ran out: book again"),
        ),
        crate::pb::booking::State::Unspecified
        | crate::pb::booking::State::Held
        | crate::pb::booking::State::Confirmed
        | crate::pb::booking::State::Cancelled => {
            (ErrorReason::InvalidState, format!("{id} is {name}"))
        }
    };
    Answer::new(Code::FailedPrecondition, reason, &message)
        .precondition(&id, &message)
        .with("name", &id)
        .with("state", &name)
}

fn reused(request_id: Option<RequestId>) -> Answer {
    let answer = Answer::new(
        Code::InvalidArgument,
        ErrorReason::RequestIdReused,
        "the request_id was used for another request: take a new UUID",
    );
    match request_id {
        Some(id) => answer.with("request_id", &id),
        None => answer,
    }
}

/// The client gets an id, the log gets the same id and everything else, with the line of the call.
fn internal(source: &(dyn StdError + 'static)) -> Answer {
    let incident = Uuid::new_v4();
    Answer::new(
        Code::Internal,
        ErrorReason::Internal,
        format!("internal error: the service's log has more under {incident}"),
    )
    .incident(incident)
    .because(format!(
        "a reason that the service does not know; report it with this line: {}",
        chain(source)
    ))
}

/// An error and all that led to it.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
