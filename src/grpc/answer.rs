//! An error status in the making: each kind of detail once, and retry advice for clients of either
//! kind.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, StatusExt};
use uuid::Uuid;

use crate::booking::BookingId;
use crate::pb::ErrorReason;

/// The `domain` of every `ErrorInfo`.
const DOMAIN: &str = "booking.v1";

/// The trailer that stock gRPC clients obey: milliseconds until a retry, negative for none.
pub(super) const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// A status in the making.
pub(super) struct Answer {
    code: Code,
    reason: ErrorReason,
    message: String,
    metadata: HashMap<String, String>,
    details: ErrorDetails,
    pushback_ms: Option<i64>,
    incident: Option<Uuid>,
    cause: Option<String>,
}

/// What a status of ours has for the log, and no client sees: it travels as its source.
#[derive(Debug)]
pub(super) struct ForTheLog {
    /// The reason, as the client is told it.
    pub(super) reason: ErrorReason,
    /// By which the client can name this very failure.
    pub(super) incident: Option<Uuid>,
    /// What happened, and what an operator does about it.
    pub(super) cause: Option<String>,
}

impl ForTheLog {
    /// Of a status, if it is one of ours.
    pub(super) fn of(status: &Status) -> Option<&Self> {
        status.source()?.downcast_ref()
    }
}

impl fmt::Display for ForTheLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cause.as_deref().unwrap_or(self.reason.as_str_name()))
    }
}

impl Error for ForTheLog {}

impl Answer {
    /// An error in its simplest form.
    pub(super) fn new(code: Code, reason: ErrorReason, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            metadata: HashMap::new(),
            details: ErrorDetails::new(),
            pushback_ms: None,
            incident: None,
            cause: None,
        }
    }

    /// A value for the client's program to use.
    pub(super) fn with(mut self, key: &str, value: &impl ToString) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// An id of this very failure, for the client and for the log.
    pub(super) fn incident(mut self, incident: Uuid) -> Self {
        self.incident = Some(incident);
        self.with("incident", &incident)
    }

    /// What happened, for the log alone.
    pub(super) fn because(mut self, cause: String) -> Self {
        self.cause = Some(cause);
        self
    }

    /// What is wrong with which field.
    pub(super) fn violations(mut self, violations: Vec<FieldViolation>) -> Self {
        self.details.set_bad_request(violations);
        self
    }

    /// What would have to be otherwise.
    pub(super) fn precondition(mut self, subject: &impl ToString, description: &str) -> Self {
        let violation =
            PreconditionViolation::new(self.reason.as_str_name(), subject.to_string(), description);
        self.details.set_precondition_failure(vec![violation]);
        self
    }

    /// Which booking is missing.
    pub(super) fn resource(mut self, id: BookingId) -> Self {
        self.details
            .set_resource_info("booking.v1.Booking", id.to_string(), "", "does not exist");
        self
    }

    /// A repeat would fail again.
    pub(super) fn never_retry(mut self) -> Self {
        self.pushback_ms = Some(-1);
        self
    }

    /// A repeat may succeed: somewhere around this time, so that those who were refused together do not return together.
    pub(super) fn retry_after(mut self, around_ms: u64) -> Self {
        let delay_ms = rand::random_range(around_ms / 2..=around_ms * 3 / 2);
        self.details
            .set_retry_info(Some(Duration::from_millis(delay_ms)));
        self.pushback_ms = i64::try_from(delay_ms).ok();
        self
    }
}

impl From<Answer> for Status {
    fn from(mut answer: Answer) -> Self {
        let reason = answer.reason.as_str_name();
        answer
            .details
            .set_error_info(reason, DOMAIN, answer.metadata);
        let mut status = Self::with_error_details(answer.code, answer.message, answer.details);
        status.set_source(Arc::new(ForTheLog {
            reason: answer.reason,
            incident: answer.incident,
            cause: answer.cause,
        }));
        if let Some(pushback_ms) = answer.pushback_ms {
            status
                .metadata_mut()
                .insert(PUSHBACK, MetadataValue::from(pushback_ms));
        }
        status
    }
}
