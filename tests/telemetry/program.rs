//! The program itself, with its options: what it serves, and that monitoring never holds it up.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use booking_service::pb::GetBookingRequest;
use booking_service::pb::booking_service_client::BookingServiceClient;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tonic::Request;

use crate::harness::{Client, block_on, booking, create};
use crate::postgres::support::certificates::Authority;
use crate::scrape::scrape;
use crate::traces::Collector;

/// A running service with a database of its own.
struct Program {
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
    _data: TempDir,
}

impl Program {
    fn start(options: &[&str]) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        // As root, PostgreSQL runs as somebody else, who has to get in.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(data.path(), open).expect("permitted");
        let mut process = Command::new(env!("CARGO_BIN_EXE_booking-service"))
            .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"])
            .args(["--drain-delay", "0s", "--data-dir"])
            .arg(data.path().join("data"))
            .args(options)
            .env_remove("DATABASE_URL")
            .env_remove("CLUSTER_ENDPOINT")
            .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
            .env_remove("OTEL_EXPORTER_OTLP_CERTIFICATE")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let stderr = process.stderr.take().expect("piped");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Self {
            process,
            log,
            _data: data,
        }
    }

    fn log(&self) -> Vec<Value> {
        let lines = self.log.lock().unwrap();
        lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// The first line in the log that says this.
    async fn logged(&self, message: &str) -> Value {
        let begin = Instant::now();
        loop {
            let line = self
                .log()
                .into_iter()
                .find(|line| line["message"] == message);
            if let Some(line) = line {
                return line;
            }
            let log = || self.log.lock().unwrap().clone();
            assert!(begin.elapsed() < Duration::from_secs(60), "{:#?}", log());
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn address(&self, message: &str) -> SocketAddr {
        let line = self.logged(message).await;
        line["address"]
            .as_str()
            .expect("an address")
            .parse()
            .expect("an address")
    }

    async fn client(&self) -> Client {
        let address = self.address("listening").await;
        BookingServiceClient::connect(format!("http://{address}"))
            .await
            .expect("connected")
    }

    /// Tells it to stop; how it did, and how long that took.
    async fn stop(&mut self) -> (ExitStatus, Duration) {
        let begin = Instant::now();
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::TERM).expect("told");
        loop {
            if let Some(status) = self.process.try_wait().expect("a child") {
                return (status, begin.elapsed());
            }
            assert!(
                begin.elapsed() < Duration::from_secs(30),
                "it does not stop"
            );
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_program_serves_metrics_where_it_is_told_to() {
    block_on(async {
        let mut program = Program::start(&["--metrics-listen", "127.0.0.1:0"]);
        let metrics = program.address("metrics are served at /metrics").await;
        program.logged("purged").await;
        program
            .logged("ready: the database answers, with the schema expected")
            .await;
        let seen = scrape(metrics).await;
        assert!(seen.sum("booking_purge_runs_total", &[("outcome", "done")]) >= 1.0);
        assert!(seen.sum("booking_ready", &[]) > 0.0);
        assert!(seen.sum("db_client_connection_count", &[]) >= 1.0);

        // The caller's trace is in the log, traced or not.
        let trace_id = uuid::Uuid::new_v4().simple().to_string();
        let parent = format!("00-{trace_id}-00f067aa0ba902b7-01");
        let mut request = Request::new(GetBookingRequest {
            name: String::new(),
        });
        request
            .metadata_mut()
            .insert("traceparent", parent.parse().unwrap());
        program
            .client()
            .await
            .get_booking(request)
            .await
            .unwrap_err();
        let answered = program.logged("answered").await;
        assert_eq!(answered["trace_id"], trace_id);
        assert!(program.stop().await.0.success());
    });
}

/// What a program says whose traces go nowhere.
const UNREACHED: &str = "traces do not reach the collector, and are dropped until they do: check that it \
     runs, its address and, for https, its certificate";

/// The time that a create and a stop take, with the collector at this address.
async fn create_and_stop(collector: SocketAddr, expect_warning: bool) {
    let endpoint = format!("http://{collector}");
    let mut program = Program::start(&["--otlp-endpoint", &endpoint]);
    let mut client = program.client().await;
    let create_one = async |client: &mut Client, number: i64| {
        let request = create(booking("room", number * 10, number * 10 + 5));
        client.create_booking(request).await.expect("made");
    };
    let mut slowest = Duration::ZERO;
    for number in 0..30 {
        let begin = Instant::now();
        create_one(&mut client, number).await;
        slowest = slowest.max(begin.elapsed());
        sleep(Duration::from_millis(if expect_warning { 250 } else { 1 })).await;
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let traced = program.logged("answered").await;
    assert_eq!(traced["trace_id"].as_str().expect("an id").len(), 32);
    let warnings = || {
        let log = program.log();
        let about = |line: &Value| {
            line["message"]
                .as_str()
                .is_some_and(|text| text.starts_with("traces do not reach"))
        };
        log.iter().filter(|line| about(line)).count()
    };
    if expect_warning {
        assert_eq!(warnings(), 1, "{:#?}", program.log());
    }
    let (status, time) = program.stop().await;
    assert!(status.success());
    assert!(time < Duration::from_secs(10), "{time:?}");
}

#[test]
fn a_collector_that_is_not_there_is_mentioned_once_and_slows_nothing() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let nobody = listener.local_addr().expect("an address");
        drop(listener);
        create_and_stop(nobody, true).await;
    });
}

#[test]
fn a_collector_that_never_answers_slows_nothing() {
    block_on(async {
        // Connections are made, by the kernel, and that is all.
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        create_and_stop(silent.local_addr().expect("an address"), false).await;
    });
}

#[test]
fn a_collector_behind_tls_gets_the_traces_if_its_ca_is_trusted() {
    block_on(async {
        let authority = Authority::new();
        let collector = Collector::default();
        let endpoint = collector.start_tls(&authority.issue("localhost")).await;
        let dir = tempfile::tempdir().expect("a directory");
        let ca = authority.write(dir.path(), "ca.pem");
        let stranger = Authority::new().write(dir.path(), "stranger.pem");
        for (ca, is_trusted) in [(None, false), (Some(stranger), false), (Some(ca), true)] {
            let mut options = vec!["--otlp-endpoint", &endpoint];
            if let Some(ca) = &ca {
                options.extend(["--otlp-ca-file", ca.to_str().expect("UTF-8")]);
            }
            let mut program = Program::start(&options);
            let mut client = program.client().await;
            client
                .create_booking(create(booking("room", 0, 5)))
                .await
                .expect("made");
            if is_trusted {
                let begin = Instant::now();
                while collector.spans().is_empty() {
                    assert!(
                        begin.elapsed() < Duration::from_secs(20),
                        "{:#?}",
                        program.log()
                    );
                    sleep(Duration::from_millis(50)).await;
                }
            } else {
                let warning = program.logged(UNREACHED).await;
                let error = warning["error"].as_str().expect("a text");
                assert!(error.contains("certificate"), "{error}");
            }
            assert!(program.stop().await.0.success());
            assert_eq!(collector.spans().is_empty(), !is_trusted);
        }
    });
}

#[test]
fn a_collectors_ca_file_that_is_none_ends_the_start() {
    block_on(async {
        let options = [
            "--otlp-endpoint",
            "https://localhost:4317",
            "--otlp-ca-file",
        ];
        for (file, words) in [
            ("/no/such/ca.pem", "No such file"),
            ("Cargo.toml", "no certificate"),
        ] {
            let mut program = Program::start(&[&options[..], &[file]].concat());
            let status = program.process.wait().expect("a child");
            assert_eq!(status.code(), Some(1));
            sleep(Duration::from_millis(100)).await;
            let log = program.log.lock().unwrap().join("\n");
            for words in [file, words, "--otlp-ca-file"] {
                assert!(log.contains(words), "{log}");
            }
        }
    });
}
