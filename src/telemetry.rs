//! What the service tells its operators: logs, on standard error.
