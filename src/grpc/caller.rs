//! On whose behalf a call is made, and what that allows.

use std::sync::Arc;

use tonic::Request;

use crate::booking::Booker;
use crate::pb;

use super::status::Error;

/// The name in the client certificate of a connection: in the extensions of its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateName(pub Arc<str>);

/// On whose behalf a call is made: in the extensions of every request that a handler sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Nobody has to sign in.
    Anyone,
    /// This person, for nobody else.
    Person(Booker),
    /// This person, who may act for others.
    Deputy(Booker),
}

impl Caller {
    /// The caller that the gate let in.
    ///
    /// # Errors
    /// Refuses a request that came by no gate: that would be a hole, not a right.
    pub(super) fn given<T>(request: &Request<T>) -> Result<Self, Error> {
        let given = request.extensions().get::<Self>().cloned();
        given.ok_or(Error::Unauthenticated("nobody was asked to sign in"))
    }

    /// Who signed in.
    pub(super) fn subject(&self) -> Option<&Booker> {
        match self {
            Self::Anyone => None,
            Self::Person(subject) | Self::Deputy(subject) => Some(subject),
        }
    }

    /// Whose bookings the caller is confined to.
    pub(super) fn owner(&self) -> Option<&Booker> {
        match self {
            Self::Anyone | Self::Deputy(_) => None,
            Self::Person(subject) => Some(subject),
        }
    }

    /// Books for the caller where the request does not say for whom, and it can be for nobody else.
    pub(super) fn fill_in(&self, booking: Option<&mut pb::Booking>) {
        if let Some(booking) = booking {
            self.fill_in_name(&mut booking.booked_by);
        }
    }

    /// Puts the caller's name where the request has none, and there can be no other.
    pub(super) fn fill_in_name(&self, booked_by: &mut String) {
        if let Some(owner) = self.owner()
            && booked_by.is_empty()
        {
            owner.as_str().clone_into(booked_by);
        }
    }
}
