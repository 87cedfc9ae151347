//! Signing in by client certificate: a file says which name has which scopes.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use http::Extensions;

use crate::booking::Booker;
use crate::files::Followed;
use crate::grpc::caller::CertificateName;
use crate::grpc::status::Error;

use super::Identity;

/// How certificates become callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateOptions {
    /// A JSON object of names, each with the array of its scopes. Read again when it changes.
    pub scopes_file: PathBuf,
    /// How often to look whether it did.
    pub poll_interval: Duration,
}

type Grants = HashMap<String, HashSet<String>>;

/// Who has which scopes.
#[derive(Debug)]
pub(super) struct Certificates(Followed<Grants>);

impl Certificates {
    pub(super) async fn open(options: CertificateOptions) -> Result<Self, String> {
        let CertificateOptions {
            scopes_file,
            poll_interval,
        } = options;
        let grants = |contents: &[Vec<u8>]| {
            serde_json::from_slice(&contents[0]).map_err(|error| {
                format!("not a JSON object of names, each with an array of scopes: {error}")
            })
        };
        let followed = Followed::open(vec![scopes_file], poll_interval, grants).await?;
        Ok(Self(followed))
    }

    /// Who stands at the other end of the connection. A name that the file does not have is somebody
    /// without any scope.
    pub(super) fn identity(&self, extensions: &Extensions) -> Result<Identity, Error> {
        let name = extensions.get::<CertificateName>();
        let name = name.ok_or(Error::Unauthenticated(
            "connect with a client certificate that has a URI or a DNS name",
        ))?;
        let subject = Booker::parse(&*name.0)
            .map_err(|_| Error::Unauthenticated("the certificate's name cannot be a booker's"))?;
        let scopes = self.0.now().get(&*name.0).cloned().unwrap_or_default();
        Ok(Identity { subject, scopes })
    }
}
