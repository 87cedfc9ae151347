//! Running the binary, and knowing what it says.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use booking_service::pb::booking_service_client::BookingServiceClient;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};

/// The longest that any of this may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The binary with these arguments, and nothing in its environment that could lead it elsewhere.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_booking-service"));
    command.env_clear().kill_on_drop(true).stdin(Stdio::null());
    for kept in ["PATH", "HOME", "TMPDIR"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command.args(arguments);
    command
}

/// What a run to its end came to.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

/// Runs it to its end.
pub(crate) async fn run(arguments: &[&str]) -> Ended {
    let began = Instant::now();
    let output = timeout(PATIENCE, command(arguments).output());
    let output = output.await.expect("it ends").expect("it runs");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        took: began.elapsed(),
    }
}

/// A service that runs.
pub(crate) struct Program {
    child: Child,
    lines: Arc<Mutex<Vec<serde_json::Value>>>,
}

impl Program {
    /// Starts `serve` on a free port, and waits until it is ready.
    pub(crate) async fn serve(arguments: &[&str]) -> Self {
        let mut program = Self::start(arguments);
        program
            .line("ready: the database answers, with the schema expected")
            .await;
        program
    }

    fn start(arguments: &[&str]) -> Self {
        let mut command = command(&["--listen", "127.0.0.1:0"]);
        let mut child = command
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped")).lines();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = lines.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                let line = serde_json::from_str(&line).unwrap_or_else(|_| line.into());
                kept.lock().unwrap().push(line);
            }
        });
        Self { child, lines }
    }

    /// Everything that it has logged so far.
    pub(crate) fn log(&self) -> Vec<serde_json::Value> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits for a line of the log with this message.
    pub(crate) async fn line(&mut self, message: &str) -> serde_json::Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let found = self
                .log()
                .into_iter()
                .find(|line| line["message"] == message);
            if let Some(line) = found {
                return line;
            }
            let ended = self.child.try_wait().expect("waited");
            assert!(
                ended.is_none() && Instant::now() < until,
                "no line {message:?}, {ended:?}: {:#?}",
                self.log()
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// A connection to it.
    pub(crate) async fn channel(&mut self) -> Channel {
        let address = self.address().await;
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URI");
        endpoint.connect().await.expect("connected")
    }

    pub(crate) async fn client(&mut self) -> BookingServiceClient<Channel> {
        BookingServiceClient::new(self.channel().await)
    }

    /// Where it listens.
    pub(crate) async fn address(&mut self) -> String {
        let line = self.line("listening").await;
        line["address"].as_str().expect("an address").to_owned()
    }

    /// Sends it a signal, by its name.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().await;
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait())
            .await
            .expect("it ends")
            .expect("waited")
    }
}
