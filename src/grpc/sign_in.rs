//! Who makes a call, and what it may do: by the token it carries, or by the client's certificate.

mod certificate;
mod fetch;
mod keys;
mod token;

use std::collections::HashSet;
use std::sync::Arc;

use http::request::Parts;

use crate::booking::Booker;

use super::call::Subject;
use super::caller::Caller;
use super::status::Error;
use certificate::Certificates;
use token::Tokens;

pub use certificate::CertificateOptions;
pub use fetch::KeySource;
pub use token::TokenOptions;

/// Why nobody can sign in: one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SignInError(String);

/// What the scopes are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeNames {
    /// To see bookings, and when resources are free.
    pub read: Arc<str>,
    /// To make, change and remove bookings.
    pub write: Arc<str>,
    /// To do so for others too. It takes the other scopes to do anything.
    pub admin: Arc<str>,
}

impl Default for ScopeNames {
    fn default() -> Self {
        Self {
            read: "bookings.read".into(),
            write: "bookings.write".into(),
            admin: "bookings.admin".into(),
        }
    }
}

/// What a call is a matter of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// Seeing.
    Read,
    /// Changing.
    Write,
}

/// Who signed in, and with which scopes.
#[derive(Debug)]
struct Identity {
    subject: Booker,
    scopes: HashSet<String>,
}

/// The way to sign in. Cheap to clone; what it goes by is kept up to date while there is a clone.
#[derive(Clone, Debug)]
pub struct SignIn {
    way: Arc<Way>,
    names: ScopeNames,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
enum Way {
    Token(Tokens),
    Certificate(Certificates),
}

impl SignIn {
    /// By a signed token in the header `authorization`.
    ///
    /// # Errors
    /// [`SignInError`] if the keys to check tokens with cannot be had.
    pub async fn by_token(options: TokenOptions, names: ScopeNames) -> Result<Self, SignInError> {
        let tokens = Tokens::open(options).await.map_err(SignInError)?;
        Ok(Self {
            way: Arc::new(Way::Token(tokens)),
            names,
        })
    }

    /// By the certificate that the client showed when it connected.
    ///
    /// # Errors
    /// [`SignInError`] if the file that says who has which scopes cannot be used.
    pub async fn by_certificate(
        options: CertificateOptions,
        names: ScopeNames,
    ) -> Result<Self, SignInError> {
        let certificates = Certificates::open(options).await.map_err(SignInError)?;
        Ok(Self {
            way: Arc::new(Way::Certificate(certificates)),
            names,
        })
    }

    /// Who makes this call, if it is somebody with this right.
    pub(super) async fn caller(&self, request: &Parts, right: Right) -> Result<Caller, Error> {
        let identity = match &*self.way {
            Way::Token(tokens) => tokens.identity(&request.headers).await?,
            Way::Certificate(certificates) => certificates.identity(&request.extensions)?,
        };
        let Identity { subject, scopes } = identity;
        if let Some(known) = request.extensions.get::<Subject>() {
            known.is(&subject);
        }
        let needed = match right {
            Right::Read => &self.names.read,
            Right::Write => &self.names.write,
        };
        if !scopes.contains(&**needed) {
            return Err(Error::ScopeMissing(Arc::clone(needed)));
        }
        Ok(if scopes.contains(&*self.names.admin) {
            Caller::Deputy(subject)
        } else {
            Caller::Person(subject)
        })
    }
}
