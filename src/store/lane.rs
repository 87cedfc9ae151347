//! Lanes: creates that wait at the same time share one transaction, and so one commit.
//!
//! A lane is a task with a queue. It takes what waits, makes it one batch, answers each caller, and
//! takes the next. There is no timer: an idle lane starts at once. A resource always goes to the same
//! lane, so a replica never conflicts with itself.

use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use opentelemetry::trace::SpanContext;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::Error;
use super::plan::{Candidate, Limits, Plan};
use super::{Mode, create, read};
use crate::booking::{Booking, Interval, NewBooking, Resource};
use crate::db::Pool;
use crate::telemetry::metrics::{self, OneMore};
use crate::telemetry::traces::{Caller, LINKS_MAX};

/// How creates are batched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneOptions {
    /// How many lanes there are: each has at most one transaction in flight.
    pub lanes: usize,
    /// Most bookings in one transaction.
    pub batch_max: usize,
    /// Most creates that wait in one lane; one more is refused with [`Error::Overloaded`].
    pub queue_max: usize,
}

impl Default for LaneOptions {
    fn default() -> Self {
        Self {
            lanes: 2,
            batch_max: 128,
            queue_max: 2_048,
        }
    }
}

/// Most resource-days that one batch touches: with the bookings and the holds that they clear well
/// under the 3,000 rows that a transaction of Aurora DSQL may write.
const BATCH_DAYS_MAX: usize = 2_000;

/// Most rounds of the scheduler that a lane waits for more to come along.
const SETTLE_ROUNDS_MAX: u32 = 16;

/// All lanes of a store.
pub(super) struct Lanes {
    lanes: Vec<Entrance>,
    closing: CancellationToken,
}

struct Entrance {
    queue: mpsc::UnboundedSender<Request>,
    places: Arc<Semaphore>,
}

/// A create that waits.
struct Request {
    new: NewBooking,
    deadline: Instant,
    reply: oneshot::Sender<Result<Booking, Error>>,
    caller: Caller,
    arrival: Instant,
    /// Its place in the queue, given back when it is answered.
    _place: OwnedSemaphorePermit,
    _in_queue: OneMore,
}

impl Request {
    /// The caller may have stopped listening: the booking stands all the same.
    fn answer(self, outcome: Result<Booking, Error>) {
        let _ = self.reply.send(outcome);
    }
}

impl Candidate for Request {
    fn booking(&self) -> &NewBooking {
        &self.new
    }
}

impl Lanes {
    /// Starts the lanes, as tasks of `tasks`.
    pub(super) fn start(pool: &Pool, options: LaneOptions, tasks: &TaskTracker) -> Self {
        let closing = CancellationToken::new();
        let limits = Limits {
            members_max: options.batch_max,
            days_max: BATCH_DAYS_MAX,
        };
        let start = |_| {
            let (queue, waiting) = mpsc::unbounded_channel();
            tasks.spawn(run(pool.clone(), limits, waiting, closing.clone()));
            Entrance {
                queue,
                places: Arc::new(Semaphore::new(options.queue_max)),
            }
        };
        Self {
            lanes: (0..options.lanes.max(1)).map(start).collect(),
            closing,
        }
    }

    /// Waits for a place in a batch, and for what becomes of it.
    pub(super) async fn create(
        &self,
        new: NewBooking,
        deadline: Instant,
    ) -> Result<Booking, Error> {
        let lane = &self.lanes[self.lane_of(&new.draft().resource)];
        let place = lane.places.clone().try_acquire_owned().map_err(|_| {
            metrics::queue_refused();
            Error::Overloaded
        })?;
        let (reply, answer) = oneshot::channel();
        let request = Request {
            new,
            deadline,
            reply,
            caller: Caller::current(),
            arrival: Instant::now(),
            _place: place,
            _in_queue: OneMore::in_queue(),
        };
        lane.queue.send(request).map_err(|_| Error::Overloaded)?;
        answer.await.unwrap_or_else(|gone| {
            Err(Error::Internal {
                source: gone.into(),
            })
        })
    }

    /// Lets the lanes end once their queues are empty.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    fn lane_of(&self, resource: &Resource) -> usize {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(resource);
        usize::try_from(hash % self.lanes.len() as u64).expect("less than the number of lanes")
    }
}

/// The life of one lane.
async fn run(
    pool: Pool,
    limits: Limits,
    mut queue: mpsc::UnboundedReceiver<Request>,
    closing: CancellationToken,
) {
    let mut waiting = VecDeque::new();
    let mut crowded = false;
    loop {
        if waiting.is_empty() {
            tokio::select! {
                request = queue.recv() => match request {
                    Some(request) => waiting.push_back(request),
                    None => return,
                },
                () = closing.cancelled(), if !queue.is_closed() => queue.close(),
            }
        }
        if crowded {
            settle(&queue).await;
        }
        while let Ok(request) = queue.try_recv() {
            waiting.push_back(request);
        }
        drop_late(&mut waiting);
        let plan = Plan::of(&mut waiting, limits);
        crowded = plan.batch.len() + plan.followers.len() > 1;
        // A panic ends the batch, whose callers hear of it, and not the lane.
        match AssertUnwindSafe(carry_out(&pool, plan))
            .catch_unwind()
            .await
        {
            Ok(again) => again
                .into_iter()
                .rev()
                .for_each(|request| waiting.push_front(request)),
            Err(_) => tracing::error!("a batch of creates was given up"),
        }
    }
}

/// Lets requests that are on the way already come along: until none came in a round of the scheduler.
async fn settle(queue: &mpsc::UnboundedReceiver<Request>) {
    let mut before = queue.len();
    for _ in 0..SETTLE_ROUNDS_MAX {
        yield_now().await;
        let now = queue.len();
        if now == before {
            return;
        }
        before = now;
    }
}

/// A request whose deadline passed in the queue is not executed.
fn drop_late(waiting: &mut VecDeque<Request>) {
    let now = Instant::now();
    let late = |request: &Request| request.deadline <= now || request.reply.is_closed();
    if waiting.iter().any(late) {
        for request in std::mem::take(waiting) {
            if late(&request) {
                metrics::queue_expired();
                request.answer(Err(Error::DeadlineExceeded));
            } else {
                waiting.push_back(request);
            }
        }
    }
}

/// Runs one batch and answers it. Returns the followers that have to be tried themselves.
async fn carry_out(pool: &Pool, plan: Plan<Request>) -> Vec<Request> {
    let Plan { batch, followers } = plan;
    let Some(deadline) = batch.iter().map(|request| request.deadline).max() else {
        return Vec::new();
    };
    let now = Instant::now();
    metrics::batch_begins(batch.iter().map(|request| now - request.arrival));
    let rivals = followers.iter().map(|(follower, _)| &follower.caller);
    let (first, others) = callers(batch.iter().map(|request| &request.caller).chain(rivals));
    let attempted = attempt(pool, &batch, deadline, others);
    let outcomes = match first {
        Some(first) => first.carry(attempted).await,
        None => attempted.await,
    };
    let mut again = Vec::new();
    let mut repeats = Vec::new();
    for (follower, leader) in followers {
        match Fate::of(&follower.new, &batch[leader].new, &outcomes[leader]) {
            Fate::Answered(answer) => follower.answer(answer),
            Fate::TakenUnlessRepeated(taken) => repeats.push((follower, taken)),
            Fate::Open => again.push(follower),
        }
    }
    for (request, outcome) in batch.into_iter().zip(outcomes) {
        request.answer(outcome);
    }
    answer_repeats(pool, repeats).await;
    again
}

/// The caller that the span of a shared transaction is a child of, the first that is traced, and the
/// others that it is linked to.
fn callers<'a>(
    mut all: impl Iterator<Item = &'a Caller> + Clone,
) -> (Option<&'a Caller>, Vec<SpanContext>) {
    let traced = all.clone().position(|caller| caller.sampled().is_some());
    let at = traced.unwrap_or(0);
    let others = all.clone().skip(at + 1).filter_map(Caller::sampled);
    let others = others.take(LINKS_MAX).collect();
    (all.nth(at), others)
}

/// All in one transaction; one by one if that fails for a reason other than time or place, so that
/// one poisoned request harms only itself.
async fn attempt(
    pool: &Pool,
    batch: &[Request],
    deadline: Instant,
    others: Vec<SpanContext>,
) -> Vec<Result<Booking, Error>> {
    let new = batch.iter().map(|request| &request.new).collect();
    match create::create(pool, new, Mode::Commit, deadline, others).await {
        Ok(outcomes) => outcomes,
        Err(error) if batch.len() == 1 => vec![Err(error)],
        Err(error) if error.is_of_time_or_place() => {
            batch.iter().map(|_| Err(error.for_another())).collect()
        }
        Err(_) => {
            let mut outcomes = Vec::with_capacity(batch.len());
            for request in batch {
                let Request { new, deadline, .. } = request;
                let made = create::create_one(pool, new, Mode::Commit, *deadline);
                outcomes.push(request.caller.carry(made).await);
            }
            outcomes
        }
    }
}

/// What the outcome of the request ahead means for one that overlaps it.
enum Fate {
    /// It is decided too.
    Answered(Result<Booking, Error>),
    /// The slot is gone; but this may be the repeat of a request that made its booking long ago.
    TakenUnlessRepeated(Error),
    /// It has to be tried itself.
    Open,
}

impl Fate {
    fn of(follower: &NewBooking, leader: &NewBooking, outcome: &Result<Booking, Error>) -> Self {
        let (by, resource, interval) = match outcome {
            Ok(booking) if follower.id() == booking.id => {
                return Self::Answered(if follower.fingerprint() == leader.fingerprint() {
                    Ok(booking.clone())
                } else {
                    Err(Error::RequestIdReused(booking.id))
                });
            }
            Ok(booking) if booking.state.blocks() => {
                (booking.id, &booking.resource, booking.interval)
            }
            Err(Error::SlotTaken {
                by,
                resource,
                interval,
            }) => (*by, resource, *interval),
            Ok(_) | Err(_) => return Self::Open,
        };
        if !in_the_way(follower, resource, interval) {
            return Self::Open;
        }
        let taken = Error::SlotTaken {
            resource: resource.clone(),
            by,
            interval,
        };
        if follower.id().is_of_request() {
            Self::TakenUnlessRepeated(taken)
        } else {
            Self::Answered(Err(taken))
        }
    }
}

fn in_the_way(new: &NewBooking, resource: &Resource, interval: Interval) -> bool {
    new.draft().resource == *resource && new.draft().interval.overlaps(&interval)
}

/// One statement tells which of these have made their booking before; the others' slot is taken.
async fn answer_repeats(pool: &Pool, repeats: Vec<(Request, Error)>) {
    let Some(deadline) = repeats.iter().map(|(request, _)| request.deadline).max() else {
        return;
    };
    let ids: Vec<_> = repeats
        .iter()
        .map(|(request, _)| request.new.id())
        .collect();
    match read::made(pool, &ids, deadline).await {
        Ok(made) => {
            for (request, taken) in repeats {
                let answer = match made.get(&request.new.id()) {
                    None => Err(taken),
                    Some((booking, fingerprint)) if *fingerprint == request.new.fingerprint() => {
                        Ok(booking.clone())
                    }
                    Some((booking, _)) => Err(Error::RequestIdReused(booking.id)),
                };
                request.answer(answer);
            }
        }
        Err(error) => {
            for (request, _) in repeats {
                request.answer(Err(error.for_another()));
            }
        }
    }
}
