//! One transaction as monitoring sees it: its attempts, its time, and what came of it.

use opentelemetry::trace::SpanContext;
use tokio::time::Instant;

use super::metrics;
use super::traces::TransactionSpan;

/// A transaction, or a read, that is under way. Dropped before its end, it was abandoned.
pub(crate) struct Transaction {
    operation: &'static str,
    begin: Instant,
    attempts: u32,
    outcome: &'static str,
    span: TransactionSpan,
}

impl Transaction {
    /// It came to an answer, if perhaps to one that its caller does not like.
    pub(crate) const ANSWERED: &'static str = "answered";

    /// Begins; `others` wait for it besides the caller that the current task works for.
    pub(crate) fn begin(operation: &'static str, others: &[SpanContext]) -> Self {
        Self {
            operation,
            begin: Instant::now(),
            attempts: 0,
            outcome: "abandoned",
            span: TransactionSpan::begin(operation, others),
        }
    }

    /// Begins an attempt.
    pub(crate) fn attempt(&mut self) -> Attempt {
        self.attempts += 1;
        Attempt {
            operation: self.operation,
            begin: Instant::now(),
        }
    }

    /// Another attempt will be made, for this reason.
    pub(crate) fn again(&self, cause: &'static str) {
        metrics::retried(self.operation, cause);
    }

    /// Ends with this outcome.
    pub(crate) fn end(mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Self {
            operation,
            outcome,
            attempts,
            ..
        } = *self;
        metrics::transaction_ended(operation, outcome, attempts, self.begin.elapsed());
        let error = if outcome == Self::ANSWERED {
            ""
        } else {
            outcome
        };
        self.span.end(attempts, error);
    }
}

/// One attempt at a transaction.
pub(crate) struct Attempt {
    operation: &'static str,
    begin: Instant,
}

impl Attempt {
    /// It came to an answer.
    pub(crate) fn answered(self) {
        self.failed("");
    }

    /// It failed, in this way.
    pub(crate) fn failed(self, how: &'static str) {
        metrics::attempted(self.operation, how, self.begin.elapsed());
    }
}
