//! The edge: turns wire requests into calls of the store, and what comes back into answers.

mod answer;
#[doc(hidden)]
pub mod bench;
mod call;
mod caller;
pub(crate) mod code;
mod deadline;
mod edge;
mod encode;
mod gate;
mod health;
mod page_token;
mod parse;
mod rate;
mod refusals;
mod service;
mod sign_in;
mod status;
mod violations;

pub use caller::CertificateName;
pub use deadline::{Deadline, stamp_arrival};
pub use edge::{Edge, EdgeLayer, Limits};
pub use gate::{Gate, GateLayer};
pub use health::Health;
pub use rate::RateLimit;
pub use service::{REQUEST_BYTES_MAX, Service};
pub use sign_in::{CertificateOptions, KeySource, ScopeNames, SignIn, SignInError, TokenOptions};
