//! The program as it is started, stopped, killed and misconfigured: the real binary.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod commands;
mod misconfigured;
mod postgres;
mod program;
mod rollout;
mod stopping;
