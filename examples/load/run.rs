//! The workers: as many as calls may be in flight, each with one call at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::calls::{Client, Made, Run};
use crate::options::Scenario;
use crate::record::{Kind, Record, reason};

/// A timer fires up to this late: not the service's fault.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// What a run has led to.
pub(crate) struct Outcome {
    /// Every booking that was acknowledged, in its last acknowledged place.
    pub(crate) made: Vec<Made>,
    /// Changes whose outcome is unknown: their bookings may be elsewhere.
    pub(crate) unsure: Vec<Made>,
}

/// When calls are to begin.
pub(crate) struct Schedule {
    begin: Instant,
    end: Instant,
    /// Between two calls, for all workers together; none in a closed loop.
    interval: Option<Duration>,
    due: AtomicU64,
}

impl Schedule {
    pub(crate) fn new(begin: Instant, length: Duration, rate: Option<f64>) -> Self {
        Self {
            begin,
            end: begin + length,
            interval: rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
            due: AtomicU64::new(0),
        }
    }

    /// The moment from which the next call counts; `None` when it is over.
    ///
    /// In an open loop that moment may have passed, because every worker was waiting for an answer:
    /// then the call is late, and its latency says so.
    async fn next(&self) -> Option<Instant> {
        let now = Instant::now();
        let Some(interval) = self.interval else {
            return (now < self.end).then_some(now);
        };
        let number = self.due.fetch_add(1, Ordering::Relaxed);
        let due = self.begin + interval.mul_f64(to_f64(number));
        if due >= self.end || now >= self.end {
            return None;
        }
        if due <= now {
            return Some(due);
        }
        sleep_until(due).await;
        Some(Instant::now().min(due + TIMER_SLACK))
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 calls")]
fn to_f64(count: u64) -> f64 {
    count as f64
}

/// Makes the bookings that the scenario begins with: those to read, those to list, and one for each
/// worker to move.
pub(crate) async fn prepare(run: &Arc<Run>, clients: &[Client]) -> Result<Vec<Made>, Status> {
    let options = &run.options;
    let wanted = match options.scenario {
        Scenario::Spread | Scenario::Hot => 0,
        Scenario::Reschedule => options.in_flight,
        Scenario::Read => run.resources().max(options.in_flight),
        Scenario::List | Scenario::Mixed => {
            (run.resources() * options.page_size).max(options.in_flight)
        }
    };
    // Gently: this is not what is measured.
    let workers = options.in_flight.clamp(16, 64).min(wanted.max(1));
    let work = (0..workers).map(|worker| {
        let (run, mut client) = (Arc::clone(run), clients[worker % clients.len()].clone());
        tokio::spawn(async move {
            let mut made = Vec::new();
            for _ in (worker..wanted).step_by(workers) {
                made.push(run.create(&mut client, run.free_place()).await?);
            }
            Ok::<_, Status>(made)
        })
    });
    let mut all = Vec::with_capacity(wanted);
    for made in join_all(work).await {
        all.extend(made.expect("no panic")?);
    }
    Ok(all)
}

/// Puts on load until the schedule is over and the last call has been answered.
pub(crate) async fn put_on_load(
    run: &Arc<Run>,
    clients: &[Client],
    prepared: &mut [Made],
    schedule: Schedule,
    record: &Arc<Record>,
) -> Outcome {
    let schedule = Arc::new(schedule);
    let readable: Arc<[Made]> = Arc::from(&*prepared);
    let work = (0..run.options.in_flight).map(|number| {
        let worker = Worker {
            run: Arc::clone(run),
            client: clients[number % clients.len()].clone(),
            record: Arc::clone(record),
            readable: Arc::clone(&readable),
            own: readable.get(number).copied(),
            made: Vec::new(),
            unsure: Vec::new(),
        };
        tokio::spawn(worker.work(Arc::clone(&schedule)))
    });
    let mut outcome = Outcome {
        made: Vec::new(),
        unsure: Vec::new(),
    };
    for (number, worker) in join_all(work).await.into_iter().enumerate() {
        let worker = worker.expect("no panic");
        if let (Some(own), Some(slot)) = (worker.own, prepared.get_mut(number)) {
            *slot = own;
        }
        outcome.made.extend(worker.made);
        outcome.unsure.extend(worker.unsure);
    }
    outcome
}

struct Worker {
    run: Arc<Run>,
    client: Client,
    record: Arc<Record>,
    readable: Arc<[Made]>,
    /// The booking that this worker, and nobody else, moves.
    own: Option<Made>,
    made: Vec<Made>,
    unsure: Vec<Made>,
}

impl Worker {
    async fn work(mut self, schedule: Arc<Schedule>) -> Self {
        while let Some(begin) = schedule.next().await {
            let (call, kind) = self.run.next_call();
            let answer = self.call(call, kind).await;
            self.record
                .add(kind, begin.elapsed(), answer.as_ref().copied());
            if let Err(status) = answer {
                pause_after(&status).await;
            }
        }
        self
    }

    async fn call(&mut self, call: usize, kind: Kind) -> Result<(), Status> {
        match kind {
            Kind::Create => {
                let place = self.run.place_of(call);
                self.made
                    .push(self.run.create(&mut self.client, place).await?);
            }
            Kind::Get => {
                let made = self.readable[call % self.readable.len()];
                self.run.get(&mut self.client, made).await?;
            }
            Kind::List => self.run.list(&mut self.client, call).await?,
            Kind::Update => {
                let own = self.own.as_mut().expect("one for each worker was made");
                let moved = self.run.reschedule(&mut self.client, own).await;
                if moved.is_err() {
                    self.unsure.push(*own);
                }
                moved?;
            }
        }
        Ok(())
    }
}

/// A service that refuses for want of room is not asked again at once.
async fn pause_after(status: &Status) {
    if reason(status) != "SLOT_UNAVAILABLE" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
