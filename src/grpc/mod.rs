//! The edge: turns wire requests into calls of the store, and what comes back into answers.

mod answer;
#[doc(hidden)]
pub mod bench;
mod call;
pub(crate) mod code;
mod deadline;
mod edge;
mod encode;
mod health;
mod page_token;
mod parse;
mod service;
mod status;
mod violations;

pub use deadline::{Deadline, stamp_arrival};
pub use edge::{Edge, EdgeLayer, Limits};
pub use health::Health;
pub use service::{REQUEST_BYTES_MAX, Service};
