//! A Unix socket that leads to another one by a long way.
//!
//! Threads and not a runtime, whose timers go by the millisecond: what is late has to be late by so much.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// What is on its way at most, in reads of up to 64 KiB.
const IN_FLIGHT_MAX: usize = 1_024;

pub(crate) fn pass_on_late(listen: &Path, to: &Path, by: Duration) -> io::Result<()> {
    let listener = UnixListener::bind(listen)?;
    loop {
        let (near, _) = listener.accept()?;
        let far = UnixStream::connect(to)?;
        late(near.try_clone()?, far.try_clone()?, by);
        late(far, near, by);
    }
}

/// Every byte arrives `by` later than it was sent, however many are on their way; so does the end.
fn late(mut from: UnixStream, mut to: UnixStream, by: Duration) {
    let (sent, arriving) = mpsc::sync_channel::<(Instant, Vec<u8>)>(IN_FLIGHT_MAX);
    thread::spawn(move || {
        let mut bytes = vec![0; 65_536];
        while let Ok(length) = from.read(&mut bytes) {
            let read = bytes[..length].to_vec();
            if length == 0 || sent.send((Instant::now() + by, read)).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        while let Ok((at, bytes)) = arriving.recv() {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        // Either end may have gone already.
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}
