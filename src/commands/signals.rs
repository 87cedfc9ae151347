//! The signals that end the process.

use std::future::Future;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Error;
use crate::server::Shutdown;

/// SIGTERM and SIGINT. Every command handles them from its start, and does not leave them to the
/// system: that withholds them from the first process of a container where nothing handles them, and
/// a container that is told to stop would sit out its grace period.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, io::Error> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub(super) async fn next(&mut self) -> Shutdown {
        tokio::select! {
            _ = self.terminate.recv() => Shutdown::Terminated,
            _ = self.interrupt.recv() => Shutdown::Interrupted,
        }
    }

    /// Does the work, unless a signal comes before it is done.
    pub(super) async fn interrupt<T>(
        &mut self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            done = work => done,
            _ = self.next() => Err(Error::Interrupted),
        }
    }
}
