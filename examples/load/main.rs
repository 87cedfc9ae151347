//! Puts load on a booking service, to size a deployment with: `cargo run --release --example load`.

mod calls;
mod check;
mod health;
mod options;
mod record;
mod report;
mod run;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tokio::time::Instant;

use calls::Run;
use options::Options;
use record::Record;
use report::Report;
use run::Schedule;

/// As the service has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match load(Options::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "to whoever started it")]
            {
                eprintln!("error: {}", explained(&*error));
            }
            ExitCode::from(2)
        }
    }
}

/// Whether the service has kept its promises.
async fn load(options: Options) -> Result<bool, Box<dyn Error>> {
    let clients = calls::connect(&options).await?;
    let health_channel = calls::channel(&options).await?;
    let run = Arc::new(Run::new(options));
    let options = &run.options;
    let mut prepared = run::prepare(&run, &clients).await?;
    let record = Arc::new(Record::default());
    let warm_up = Schedule::new(Instant::now(), options.warm_up, options.rate);
    let warmed = run::put_on_load(&run, &clients, &mut prepared, warm_up, &record).await;
    record.clear();

    let begin = Instant::now();
    let schedule = Schedule::new(begin, options.duration, options.rate);
    let mut outcome = tokio::select! {
        outcome = run::put_on_load(&run, &clients, &mut prepared, schedule, &record) => outcome,
        () = report::show_progress(Arc::clone(&record), options.duration) => unreachable!("for ever"),
        never = health::watch(health_channel, Arc::clone(&record)) => match never {},
    };
    let length = begin.elapsed();
    report::end_progress();
    outcome.made.extend(warmed.made);
    outcome.unsure.extend(warmed.unsure);
    outcome.made.extend(prepared);

    let findings = if options.no_check {
        None
    } else {
        Some(check::check(&run, &clients, &outcome).await?)
    };
    let kept = findings.as_ref().is_none_or(check::Findings::is_clean);
    // What went wrong is left to be looked at.
    let left = if options.keep || !kept {
        outcome.made.len()
    } else {
        check::clean_up(&run, &clients, &outcome.made).await
    };
    let seen = record.snapshot();
    let report = Report {
        run: &run,
        seen,
        length,
        findings,
        left,
    };
    report.print();
    Ok(kept)
}

/// The error and what led to it.
fn explained(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
