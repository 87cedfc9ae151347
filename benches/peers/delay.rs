//! A Unix socket that leads to another one by a long way.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// What is on its way at most, in reads of up to 64 KiB.
const IN_FLIGHT_MAX: usize = 1_024;

pub(crate) async fn pass_on_late(listen: &Path, to: &Path, by: Duration) -> io::Result<()> {
    let listener = UnixListener::bind(listen)?;
    loop {
        let (near, _) = listener.accept().await?;
        tokio::spawn(connection(near, to.to_owned(), by));
    }
}

async fn connection(near: UnixStream, to: PathBuf, by: Duration) -> io::Result<()> {
    let far = UnixStream::connect(to).await?;
    let (from_near, to_near) = near.into_split();
    let (from_far, to_far) = far.into_split();
    tokio::select! {
        ended = late(from_near, to_far, by) => ended,
        ended = late(from_far, to_near, by) => ended,
    }
}

/// Every byte arrives `by` later than it was sent, however many are on their way.
async fn late(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    by: Duration,
) -> io::Result<()> {
    let (sent, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(IN_FLIGHT_MAX);
    let send = async move {
        loop {
            let mut bytes = vec![0; 65_536];
            let length = from.read(&mut bytes).await?;
            bytes.truncate(length);
            if length == 0 || sent.send((Instant::now() + by, bytes)).await.is_err() {
                return Ok(());
            }
        }
    };
    let arrive = async move {
        while let Some((at, bytes)) = arriving.recv().await {
            sleep_until(at).await;
            to.write_all(&bytes).await?;
        }
        Ok(())
    };
    tokio::try_join!(send, arrive).map(drop)
}
