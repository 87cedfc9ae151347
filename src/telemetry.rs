//! What the service tells its operators: logs on standard error, metrics, and traces.

pub mod exposition;
pub mod metrics;
pub mod traces;
pub(crate) mod transaction;

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{LogFormat, LogOptions};

/// Begins to log what passes the filter.
///
/// On standard error, since standard output belongs to what commands print.
///
/// # Errors
/// [`ParseError`] if the filter is not one.
///
/// # Panics
/// If called twice in a process.
pub fn init(options: &LogOptions) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(&options.log)?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr);
    let text = match options.log_format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    if text {
        logs.with_ansi(stderr().is_terminal()).init();
    } else {
        // The fields of an event stand beside its message, those of its call in `span`.
        let logs = logs.json().flatten_event(true);
        logs.with_span_list(false).init();
    }
    Ok(())
}
