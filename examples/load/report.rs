//! What is printed: a progress bar while it runs, and the results.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what the tool is for"
)]

use std::io::{IsTerminal, Write as _, stderr};
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::calls::Run;
use crate::check::Findings;
use crate::record::{Record, Seen};

/// The percentiles that are shown.
const PERCENTILES: [(&str, f64); 5] = [
    ("p50", 50.0),
    ("p90", 90.0),
    ("p99", 99.0),
    ("p99.9", 99.9),
    ("max", 100.0),
];

const BAR_WIDTH: usize = 30;
const BAR_INTERVAL: Duration = Duration::from_millis(200);

/// Shows how far it is, on a terminal, for ever.
pub(crate) async fn show_progress(record: Arc<Record>, length: Duration) {
    if !stderr().is_terminal() {
        return std::future::pending().await;
    }
    let begin = Instant::now();
    let mut ticks = interval(BAR_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = ticks.tick().await;
    loop {
        let now = ticks.tick().await;
        let (answers, errors) = record.tick();
        let done = begin.elapsed().as_secs_f64() / length.as_secs_f64();
        let rate = per_second(answers, now - last);
        last = now;
        eprint!("\r{} {rate:>9.0}/s, {errors} errors ", bar(done.min(1.0)));
        // There is nobody to tell if that fails.
        let _ = stderr().flush();
    }
}

/// Wipes the progress bar away.
pub(crate) fn end_progress() {
    if stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "from 0 to the width of the bar"
)]
fn bar(done: f64) -> String {
    let full = (done * BAR_WIDTH as f64) as usize;
    let empty = BAR_WIDTH.saturating_sub(full);
    format!("[{}{}]", "#".repeat(full), ".".repeat(empty))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn per_second(count: u64, length: Duration) -> f64 {
    count as f64 / length.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

/// A result, ready to be printed.
pub(crate) struct Report<'a> {
    pub(crate) run: &'a Run,
    pub(crate) seen: Seen,
    pub(crate) length: Duration,
    /// What the check found; `None` if there was none.
    pub(crate) findings: Option<Findings>,
    /// Bookings of the run that are still there, as far as it knows.
    pub(crate) left: usize,
}

impl Report<'_> {
    pub(crate) fn print(&self) {
        if self.run.options.json {
            println!("{}", self.json());
        } else {
            self.print_text();
        }
    }

    fn json(&self) -> Value {
        let summary = |latencies: &Histogram<u64>| {
            let mut values = serde_json::Map::new();
            values.insert("count".to_owned(), json!(latencies.len()));
            for (name, at) in PERCENTILES {
                let value = millis(latencies.value_at_percentile(at));
                values.insert(name.to_owned(), json!(value));
            }
            Value::Object(values)
        };
        let latencies = self.seen.latencies.iter();
        let latencies = latencies.map(|(kind, seen)| (kind.name().to_owned(), summary(seen)));
        let findings = self.findings.as_ref().map(|findings| {
            json!({
                "bookings": findings.bookings,
                "overlaps": findings.overlaps,
                "missing": findings.missing,
                "misplaced": findings.misplaced,
            })
        });
        json!({
            "run": self.run.id,
            "scenario": format!("{:?}", self.run.options.scenario).to_lowercase(),
            "in_flight": self.run.options.in_flight,
            "connections": self.run.options.connections(),
            "rate": self.run.options.rate,
            "seconds": self.length.as_secs_f64(),
            "answers": self.seen.answers(),
            "answers_per_second": per_second(self.seen.answers(), self.length),
            "done": self.seen.done,
            "refused": self.seen.refused,
            "errors": self.seen.errors,
            "latency_ms": latencies.collect::<serde_json::Map<_, _>>(),
            "error_latency_ms": self.seen.error_latencies.as_ref().map(summary),
            "health_ms": self.seen.health.as_ref().map(summary),
            "unhealthy": self.seen.unhealthy,
            "check": findings,
            "left": self.left,
        })
    }

    fn print_text(&self) {
        let Self { run, seen, .. } = self;
        let options = &run.options;
        println!(
            "{:?}: {} in flight on {} connections for {:.1} s (run {})",
            options.scenario,
            options.in_flight,
            options.connections(),
            self.length.as_secs_f64(),
            run.id
        );
        let rate = per_second(seen.answers(), self.length);
        println!("{} answers, {rate:.0} a second", seen.answers());
        if let Some(due) = options.rate {
            println!("{due:.0} a second were due");
        }
        if seen.refused > 0 {
            println!("{} of them: the slot is taken", seen.refused);
        }
        for (reason, count) in &seen.errors {
            println!("{count} of them: {reason}");
        }
        for (kind, latencies) in &seen.latencies {
            println!("{:<14} {}", kind.name(), percentiles(latencies));
        }
        if let Some(latencies) = &seen.error_latencies {
            println!("{:<14} {}", "errors", percentiles(latencies));
        }
        if let Some(latencies) = &seen.health {
            println!("{:<14} {}", "health", percentiles(latencies));
        }
        if seen.unhealthy > 0 {
            println!("{} health checks failed", seen.unhealthy);
        }
        if let Some(findings) = &self.findings {
            println!(
                "checked: {} bookings, {} overlaps, {} missing, {} misplaced",
                findings.bookings, findings.overlaps, findings.missing, findings.misplaced
            );
            for example in &findings.examples {
                println!("  {example}");
            }
        }
        if self.left > 0 {
            println!("left: {} bookings by {}", self.left, run.booked_by());
        }
    }
}

fn percentiles(latencies: &Histogram<u64>) -> String {
    let shown = PERCENTILES.map(|(name, at)| {
        let value = millis(latencies.value_at_percentile(at));
        format!("{name} {value:.2} ms")
    });
    shown.join("  ")
}
