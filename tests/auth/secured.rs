//! A service that callers have to sign in to, and clients that do.

use std::path::PathBuf;
use std::sync::Arc;

use booking_service::pb::booking_service_client::BookingServiceClient;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::harness::{House, Instance, reason_of};
use crate::issuer::{ADMIN, Key, USER, claims, jwks, trusting};

pub(crate) type Client = BookingServiceClient<InterceptedService<Channel, Bearer>>;

/// Puts these headers `authorization` on each call.
#[derive(Clone)]
pub(crate) struct Bearer(Arc<Vec<String>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for value in self.0.iter() {
            let value = MetadataValue::try_from(value.as_str()).unwrap();
            request.metadata_mut().append("authorization", value);
        }
        Ok(request)
    }
}

/// A client whose calls carry these headers.
pub(crate) fn client_with(channel: Channel, headers: &[&str]) -> Client {
    let headers = headers.iter().map(ToString::to_string).collect();
    BookingServiceClient::with_interceptor(channel, Bearer(Arc::new(headers)))
}

/// A client whose calls carry this token.
pub(crate) fn client(channel: Channel, token: &str) -> Client {
    client_with(channel, &[&format!("Bearer {token}")])
}

/// The service that the tests share, and the keys it trusts.
pub(crate) struct Office {
    pub(crate) instance: Instance,
    pub(crate) rsa: Key,
    pub(crate) p256: Key,
    pub(crate) p384: Key,
    pub(crate) ed25519: Key,
    _dir: TempDir,
}

impl Office {
    pub(crate) async fn shared() -> &'static Self {
        static OFFICE: OnceCell<Office> = OnceCell::const_new();
        OFFICE
            .get_or_init(|| async {
                let rsa = Key::rsa("rsa");
                let (p256, p384) = (Key::p256("p256"), Key::p384("p384"));
                let ed25519 = Key::ed25519("ed25519");
                let (dir, file) = written(&jwks(&[&rsa, &p256, &p384, &ed25519]));
                let database = House::shared().await.database();
                Self {
                    instance: Instance::start(database, trusting(&file).await).await,
                    rsa,
                    p256,
                    p384,
                    ed25519,
                    _dir: dir,
                }
            })
            .await
    }

    /// Somebody who may do everything in their own name.
    pub(crate) fn user(&self, subject: &str) -> Client {
        self.with(&claims(subject, USER))
    }

    /// Somebody who may act for others.
    pub(crate) fn admin(&self, subject: &str) -> Client {
        self.with(&claims(subject, ADMIN))
    }

    pub(crate) fn with(&self, claims: &Value) -> Client {
        client(self.instance.channel(), &self.p256.token(claims))
    }
}

/// A file of this content, and the directory it is in.
pub(crate) fn written(content: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("content");
    std::fs::write(&file, content).unwrap();
    (dir, file)
}

pub(crate) fn assert_refused<T: std::fmt::Debug>(
    answer: Result<T, Status>,
    code: Code,
    reason: &str,
    what: &str,
) -> Status {
    let status = answer.expect_err(what);
    assert_eq!(
        (status.code(), &*reason_of(&status)),
        (code, reason),
        "{what}: {status:?}"
    );
    status
}

pub(crate) fn assert_denied<T: std::fmt::Debug>(answer: Result<T, Status>, what: &str) -> Status {
    assert_refused(answer, Code::PermissionDenied, "PERMISSION_DENIED", what)
}

pub(crate) fn assert_unknown<T: std::fmt::Debug>(answer: Result<T, Status>, what: &str) -> Status {
    assert_refused(answer, Code::Unauthenticated, "UNAUTHENTICATED", what)
}
