//! Point reads: those that wait at the same time share one statement.
//!
//! A few readers take turns at one queue. Whoever is free takes all that waits, asks for it at once
//! and answers each caller. There is no timer: a lone read starts at once. A read sees every change
//! that was answered before it was asked for, since its statement begins later than that.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use super::error::Error;
use super::{in_time, read};
use crate::booking::{Booking, BookingId};
use crate::db::Pool;

/// How many statements are in flight at most. More make each smaller and keep more of the pool from
/// everybody else; fewer have a read wait longer for the one ahead.
const READERS: usize = 4;

/// Most bookings that one statement asks for.
const BATCH_MAX: usize = 128;

/// Most reads that wait; one more is refused with [`Error::Overloaded`].
const QUEUE_MAX: usize = 8_192;

/// The way in to the readers, who end when it is gone.
pub(super) struct PointReads {
    queue: mpsc::Sender<Request>,
}

/// A read that waits.
struct Request {
    id: BookingId,
    deadline: Instant,
    reply: oneshot::Sender<Result<Booking, Error>>,
}

type Queue = Arc<Mutex<mpsc::Receiver<Request>>>;

impl PointReads {
    /// Starts the readers.
    pub(super) fn start(pool: &Pool) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..READERS {
            tokio::spawn(run(pool.clone(), Arc::clone(&waiting)));
        }
        Self { queue }
    }

    /// Returns the booking, in whatever state.
    pub(super) async fn get(&self, id: BookingId, deadline: Instant) -> Result<Booking, Error> {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            id,
            deadline,
            reply,
        };
        let queued = self.queue.try_send(request);
        queued.map_err(|_| Error::Overloaded)?;
        answer.await.unwrap_or_else(|gone| {
            Err(Error::Internal {
                source: gone.into(),
            })
        })
    }
}

/// The life of one reader.
async fn run(pool: Pool, queue: Queue) {
    loop {
        let mut batch = Vec::new();
        if queue.lock().await.recv_many(&mut batch, BATCH_MAX).await == 0 {
            return;
        }
        // A panic ends the batch, whose callers hear of it, and not the reader.
        let carried_out = AssertUnwindSafe(carry_out(&pool, batch)).catch_unwind();
        if carried_out.await.is_err() {
            tracing::error!("a batch of reads was given up");
        }
    }
}

/// Asks for one batch and answers it. Who has stopped listening is not asked for.
async fn carry_out(pool: &Pool, mut batch: Vec<Request>) {
    let now = Instant::now();
    batch.retain(|request| request.deadline > now && !request.reply.is_closed());
    let Some(deadline) = batch.iter().map(|request| request.deadline).max() else {
        return;
    };
    let ids: Vec<_> = batch.iter().map(|request| request.id).collect();
    // The bound frees the reader when nobody listens any more, whatever became of the connection.
    let found = in_time(deadline, read::made(pool, &ids, deadline)).await;
    let alone = matches!(found, Err(Error::Internal { .. })) && batch.len() > 1;
    for request in batch {
        let answer = match &found {
            Ok(found) => answer(found, request.id),
            // One that cannot be read harms only itself.
            Err(_) if alone => read_alone(pool, &request).await,
            Err(error) => Err(error.for_another()),
        };
        // The caller may have stopped listening meanwhile.
        let _ = request.reply.send(answer);
    }
}

async fn read_alone(pool: &Pool, request: &Request) -> Result<Booking, Error> {
    let ids = [request.id];
    let found = read::made(pool, &ids, request.deadline);
    answer(&in_time(request.deadline, found).await?, request.id)
}

fn answer<T>(found: &HashMap<BookingId, (Booking, T)>, id: BookingId) -> Result<Booking, Error> {
    match found.get(&id) {
        Some((booking, _)) => Ok(booking.clone()),
        None => Err(Error::NotFound(id)),
    }
}
