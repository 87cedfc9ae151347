//! The one retry loop: runs an attempt until it has an answer, the deadline passes, or it has lost
//! too often.

use std::time::Duration;

use opentelemetry::trace::SpanContext;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_postgres::error::SqlState;

use super::Mode;
use super::error::{Cause, Error};
use crate::db::{self, Connection, Pool};
use crate::telemetry::transaction::Transaction;

/// Most attempts at one call.
///
/// Every conflict means that another transaction committed, so a crowd of rivals for one day of one
/// resource shrinks by at least one with each round.
const ATTEMPTS_MAX: u32 = 24;

/// Mean of the pause before the second attempt is half of this.
const BACKOFF_BASE: Duration = Duration::from_millis(4);

/// Longest pause between two attempts.
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Longest time that one attempt may take before its connection counts as dead.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(15);

/// What a failed attempt says about the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// Another transaction won. Nothing was changed; again.
    Conflict,
    /// The connection or the server went away. It may have committed first; again.
    Lost,
    /// No use in trying again.
    Fatal,
}

impl Failure {
    /// Its name in metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Lost => "lost",
            Self::Fatal => "fatal",
        }
    }
}

/// Whether an earlier attempt may have committed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing was changed so far.
    Nothing,
    /// Perhaps this very change.
    PerhapsDone,
}

/// A piece of work that is done in one transaction, or one statement.
///
/// It must be harmless to repeat after an attempt that committed: every change here has an id or a
/// revision that was fixed before the first.
pub(super) trait Attempt: Send + Sync {
    /// What it comes to.
    type Answer: Send;

    /// Its name in logs, metrics and traces.
    fn name(&self) -> &'static str;

    /// Who waits for it, besides the caller that the current task works for.
    fn others(&self) -> &[SpanContext] {
        &[]
    }

    /// Whether it changes anything.
    fn mode(&self) -> Mode;

    /// Tries it once. The outer result says whether the database went along with it; then the inner
    /// one, an answer or a refusal, is final.
    fn attempt(
        &self,
        connection: &Connection,
        before: Before,
    ) -> impl Future<Output = Result<Result<Self::Answer, Error>, tokio_postgres::Error>> + Send;
}

/// Attempts `work` on connections of the pool until it has an answer.
///
/// # Errors
/// What the work was refused with; [`Error::Contention`], [`Error::Unavailable`],
/// [`Error::DeadlineExceeded`] or [`Error::Internal`].
pub(super) async fn run<W: Attempt>(
    pool: &Pool,
    work: &W,
    deadline: Instant,
) -> Result<W::Answer, Error> {
    let mut transaction = Transaction::begin(work.name(), work.others());
    let answer = until_answered(pool, work, deadline, &mut transaction).await;
    transaction.end(answer.as_ref().err().map_or(Transaction::ANSWERED, outcome));
    answer
}

async fn until_answered<W: Attempt>(
    pool: &Pool,
    work: &W,
    deadline: Instant,
    transaction: &mut Transaction,
) -> Result<W::Answer, Error> {
    let mut before = Before::Nothing;
    for attempts in 1.. {
        let connection = match pool.get(deadline).await {
            Ok(connection) => connection,
            Err(error) => match pause_without_connection(error, attempts, before, deadline).await {
                None => continue,
                Some(error) => return Err(error),
            },
        };
        let attempt = transaction.attempt();
        let (failure, source): (Failure, Cause) =
            match timeout(ATTEMPT_TIME_MAX, work.attempt(&connection, before)).await {
                Ok(Ok(answer)) => {
                    attempt.answered();
                    return answer;
                }
                Ok(Err(error)) => {
                    let failure = classify(&error);
                    attempt.failed(failure.name());
                    (failure, error.into())
                }
                Err(elapsed) => {
                    attempt.failed("timeout");
                    connection.mark_broken();
                    (Failure::Lost, elapsed.into())
                }
            };
        drop(connection);
        if failure == Failure::Lost && work.mode() == Mode::Commit {
            before = Before::PerhapsDone;
        }
        tracing::debug!(call = work.name(), attempts, ?failure, error = %source, "attempt failed");
        let out_of_attempts = attempts >= ATTEMPTS_MAX;
        match (failure, before) {
            (Failure::Fatal, _) => return Err(Error::Internal { source }),
            (Failure::Conflict, Before::Nothing) if out_of_attempts => {
                return Err(Error::Contention { attempts, source });
            }
            (Failure::Lost, Before::Nothing) if out_of_attempts => {
                return Err(Error::Unavailable { source });
            }
            (Failure::Conflict | Failure::Lost, _) => {
                transaction.again(failure.name());
                pause(attempts, deadline).await?;
            }
        }
    }
    unreachable!("the loop above returns")
}

/// What became of a transaction, in metrics and traces. A refusal is an answer.
fn outcome(error: &Error) -> &'static str {
    match error {
        Error::SlotTaken { .. }
        | Error::NotFound(_)
        | Error::NotOwned
        | Error::EtagMismatch(_)
        | Error::InvalidState { .. }
        | Error::InvalidInterval(_)
        | Error::RequestIdReused(_)
        | Error::TooMany { .. } => Transaction::ANSWERED,
        Error::Contention { .. } => "contention",
        Error::Overloaded => "overloaded",
        Error::Unavailable { .. } => "unavailable",
        Error::DeadlineExceeded => "deadline_exceeded",
        Error::Internal { .. } => "internal",
    }
}

/// Without a connection nothing was executed: that is the answer, unless an earlier attempt may have
/// committed. Then only a later attempt can tell, as long as the deadline allows.
async fn pause_without_connection(
    error: db::Error,
    attempts: u32,
    before: Before,
    deadline: Instant,
) -> Option<Error> {
    match before {
        Before::Nothing => Some(match error {
            // All connections were busy until then.
            db::Error::Timeout { .. } => Error::DeadlineExceeded,
            error @ (db::Error::Configuration(_)
            | db::Error::Unavailable(_)
            | db::Error::Embedded(_)) => Error::Unavailable {
                source: error.into(),
            },
        }),
        Before::PerhapsDone => pause(attempts, deadline).await.err(),
    }
}

async fn pause(attempts: u32, deadline: Instant) -> Result<(), Error> {
    let length = backoff(attempts, rand::random());
    timeout_at(deadline, sleep(length))
        .await
        .map_err(|_| Error::DeadlineExceeded)
}

/// The pause after this many attempts: exponential, with full jitter (`chance` of 0 to 1), so that
/// rivals do not meet again at the same moment.
fn backoff(attempts: u32, chance: f64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    BACKOFF_BASE
        .saturating_mul(1 << doublings)
        .min(BACKOFF_MAX)
        .mul_f64(chance)
}

fn classify(error: &tokio_postgres::Error) -> Failure {
    match error.code() {
        Some(code) => classify_code(code),
        // No answer of the server's: the connection broke.
        None => Failure::Lost,
    }
}

/// By the SQLSTATE alone; Aurora DSQL's texts have changed over time.
fn classify_code(code: &SqlState) -> Failure {
    match code.code() {
        // serialization_failure (Aurora DSQL: OC000, and OC001 after a change of the schema),
        // deadlock_detected, and unique_violation: the unique index noticed a rival first.
        "40001" | "40P01" | "23505" => Failure::Conflict,
        // The server shuts down, starts, or has become a standby; Aurora DSQL says XX000 when it is
        // unavailable, and 40003 means that nobody knows.
        "57P01" | "57P02" | "57P03" | "25006" | "XX000" | "40003" => Failure::Lost,
        // connection_exception, and insufficient_resources (connections, memory, disk).
        code if code.starts_with("08") || code.starts_with("53") => Failure::Lost,
        _ => Failure::Fatal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    quickcheck! {
        fn backoff_is_bounded(attempts: u32, chance: u16) -> bool {
            let chance = f64::from(chance) / f64::from(u16::MAX);
            backoff(attempts, chance) <= BACKOFF_MAX
        }

        fn backoff_grows_until_its_bound(attempts: u8) -> bool {
            let attempts = u32::from(attempts);
            backoff(attempts, 1.0) <= backoff(attempts + 1, 1.0)
        }

        /// Whatever the text: only these may be tried again, all else would fail again.
        fn only_known_codes_are_retried(class: u8, rest: u16) -> bool {
            let code = format!("{:02}{:03}", class % 100, rest % 1_000);
            let retried = classify_code(&SqlState::from_code(&code)) != Failure::Fatal;
            let known = code.starts_with("08") || code.starts_with("53")
                || ["40001", "40003", "23505", "25006"].contains(&code.as_str());
            retried == known
        }
    }

    #[test]
    fn conflicts_and_losses_are_told_apart() {
        let classified = |code| classify_code(&SqlState::from_code(code));
        for code in ["40001", "40P01", "23505"] {
            assert_eq!(classified(code), Failure::Conflict, "{code}");
        }
        for code in [
            "57P01", "57P03", "08006", "53300", "53400", "53100", "XX000",
        ] {
            assert_eq!(classified(code), Failure::Lost, "{code}");
        }
        for code in [
            "23503", "23514", "42501", "42P01", "54000", "0A000", "22001",
        ] {
            assert_eq!(classified(code), Failure::Fatal, "{code}");
        }
    }
}
