//! What the service tells its operators: logs, on standard error.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For machines: one object a line.
    Json,
}

/// Begins to log what passes the filter, e.g. `info` or `info,booking_service=debug`.
///
/// Standard error, since standard output belongs to what commands print.
///
/// # Errors
/// [`ParseError`] if the filter is not one.
///
/// # Panics
/// If called twice in a process.
pub fn init(format: LogFormat, filter: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr);
    let text = match format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    if text {
        logs.with_ansi(stderr().is_terminal()).init();
    } else {
        // The fields of an event stand beside its message, those of its call in `span`.
        logs.json().flatten_event(true).with_span_list(false).init();
    }
    Ok(())
}
