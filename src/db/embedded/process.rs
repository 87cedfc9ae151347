//! The server's processes: `initdb` once, then `postgres` under a supervisor that ends it with us.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::account::{self, Account, create_private_dir};
use super::binaries::Installation;
use super::home::{Home, SocketDir};
use super::{Error, SUPERUSER};

/// Runs the server, and stops it as soon as standard input closes, which happens however its owner
/// ends. SIGINT is PostgreSQL's fast shutdown; it is repeated, since one that comes before the
/// server's handlers are set up gets lost. The exit status is the server's.
const SUPERVISOR: &str = r#"
exec 3<&0
"$@" 3<&- </dev/null &
server=$!
(
    read -r _ <&3
    while kill -INT "$server"; do sleep 0.1; done
) 2>/dev/null &
watcher=$!
exec 3<&- </dev/null
wait "$server"
status=$?
kill "$watcher" 2>/dev/null
exit "$status"
"#;

/// Connections the server admits: the largest pool, and some for administration.
const MAX_CONNECTIONS: u32 = 1_020;

/// How much of the end of the log goes into an error.
const LOG_TAIL_BYTES: u64 = 2_000;

const STOP_POLL: Duration = Duration::from_millis(10);

/// Makes the cluster where there is none yet.
pub(super) fn ensure_cluster(
    home: &Home,
    installation: &Installation,
    account: Option<&Account>,
) -> Result<(), Error> {
    let cluster = home.cluster();
    if cluster.exists() {
        return Ok(());
    }
    remove_unfinished(home);
    let unfinished = home.unfinished_cluster();
    create_private_dir(&unfinished, account)?;
    let output = account::command(&installation.bin_dir.join("initdb"), account)
        .arg("-D")
        .arg(&unfinished)
        // Only who can enter the socket's directory can connect at all.
        .args(["--auth=trust", "--encoding=UTF8", "--locale=C"])
        .arg(format!("--username={SUPERUSER}"))
        .output()
        .map_err(Error::io("run initdb in", &installation.bin_dir))?;
    if !output.status.success() {
        return Err(Error::Failed {
            program: "initdb",
            outcome: output.status.to_string(),
            output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    fs::rename(&unfinished, &cluster).map_err(Error::io("create", &cluster))?;
    File::open(home.dir())
        .and_then(|dir| dir.sync_all())
        .map_err(Error::io("sync", home.dir()))
}

/// Removes what an interrupted `initdb` left; if that fails, it only takes up space.
fn remove_unfinished(home: &Home) {
    for entry in fs::read_dir(home.dir()).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("initdb-") {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A running supervisor, and with it the server. Dropped, it has the server stop.
#[derive(Debug)]
pub(super) struct Process {
    supervisor: Child,
}

impl Process {
    /// Starts the server; its log begins anew.
    pub(super) fn start(
        home: &Home,
        installation: &Installation,
        account: Option<&Account>,
        socket_dir: &SocketDir,
        settings: &[(String, String)],
    ) -> Result<Self, Error> {
        let path = home.log();
        let log = open_log(&path).map_err(Error::io("open", &path))?;
        let errors = log.try_clone().map_err(Error::io("open", &path))?;
        let mut command = account::command(Path::new("/bin/sh"), account);
        command.args(["-c", SUPERVISOR, "booking-service-supervisor"]);
        command.arg(installation.bin_dir.join("postgres"));
        command.arg("-D").arg(home.cluster());
        command.arg("-k").arg(socket_dir.path());
        command.args([
            "-c",
            "listen_addresses=",
            "-c",
            "unix_socket_permissions=0700",
        ]);
        command.args(["-c", "cluster_name=booking-service", "-c", "fsync=on"]);
        command
            .arg("-c")
            .arg(format!("max_connections={MAX_CONNECTIONS}"));
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let supervisor = command
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(errors)
            // Out of reach of Ctrl-C, which is for us: the server has to outlive our drain.
            .process_group(0)
            .spawn()
            .map_err(Error::io("run", Path::new("/bin/sh")))?;
        Ok(Self { supervisor })
    }

    /// Fails where the server has ended, with its last words.
    pub(super) fn check_running(&mut self, log: &Path) -> Result<(), Error> {
        match self.supervisor.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(Error::Failed {
                program: "postgres",
                outcome: status.to_string(),
                output: tail(log).unwrap_or_default(),
            }),
            Err(source) => Err(Error::io("wait for", Path::new("/bin/sh"))(source)),
        }
    }

    /// Has the server stop, and waits until it is gone; blocks.
    pub(super) fn stop(mut self, limit: Duration) -> Result<(), Error> {
        drop(self.supervisor.stdin.take());
        let start = Instant::now();
        while let Ok(None) = self.supervisor.try_wait() {
            if start.elapsed() > limit {
                let seconds = limit.as_secs();
                return Err(Error::NotStopping { seconds });
            }
            sleep(STOP_POLL);
        }
        Ok(())
    }
}

/// Empty, and written at its end by all who hold it.
fn open_log(path: &Path) -> std::io::Result<File> {
    let log = OpenOptions::new().create(true).append(true).open(path)?;
    log.set_len(0)?;
    Ok(log)
}

fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let skipped = file.metadata()?.len().saturating_sub(LOG_TAIL_BYTES);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}
