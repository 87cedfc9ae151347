//! PostgreSQL by URL: what `sslmode` and `sslrootcert` ask for, and the settings of a session.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bb8_postgres::PostgresConnectionManager;
use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls::{self, Verification};
use super::{CONNECT_TIMEOUT, Error};

/// What the service calls itself in `pg_stat_activity`.
const APPLICATION_NAME: &str = "booking-service";

/// Server-side settings of every session. A transaction that its owner forgot must not live on.
///
/// Every statement is prepared, and meant to run along an index, whatever the table's size was when
/// it was planned: one plan for all arguments, planned once, and no plan that reads whole tables, or
/// sorts a whole resource for one page of it.
const SESSION_OPTIONS: &str = "-c idle_in_transaction_session_timeout=60s \
     -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_bitmapscan=off \
     -c enable_hashjoin=off -c enable_mergejoin=off -c enable_sort=off -c jit=off \
     -c client_min_messages=warning";

/// A dead peer is noticed after about a minute: 30 s of silence, then 3 probes 10 s apart.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// A PostgreSQL to connect to. `Debug` does not show the password.
#[derive(Clone, Debug)]
pub struct Options {
    config: Config,
    verification: Verification,
    ca_file: Option<PathBuf>,
}

impl Options {
    /// Reads a connection string, a URL or `key=value` pairs, as libpq does; `ca_file` comes before
    /// its `sslrootcert`, and with either the default `sslmode` is `verify-full`.
    ///
    /// # Errors
    /// [`Error::Configuration`] where the string is wrong; it does not repeat any of it, since a
    /// mistake may have put the password anywhere.
    pub fn parse(connection_string: &str, ca_file: Option<&Path>) -> Result<Self, Error> {
        let (rest, mode, root_cert) = split_tls_parameters(connection_string);
        let mut config: Config = rest.parse().map_err(|_| malformed())?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(malformed());
        }
        let ca_file = ca_file
            .map(Path::to_owned)
            .or_else(|| root_cert.filter(|path| path != "system").map(PathBuf::from));
        let (ssl_mode, verification) = tls_mode(mode.as_deref(), ca_file.is_some())?;
        config.ssl_mode(ssl_mode);
        Ok(Self::new(config, verification, ca_file))
    }

    /// A server that listens on the Unix socket in `socket_dir`.
    #[must_use]
    pub fn on_socket(socket_dir: &Path, user: &str, database: &str) -> Self {
        let mut config = Config::new();
        config.host_path(socket_dir).user(user).dbname(database);
        Self::new(config, Verification::None, None)
    }

    fn new(mut config: Config, verification: Verification, ca_file: Option<PathBuf>) -> Self {
        let is_socket = |host: &Host| matches!(host, Host::Unix(_));
        if !config.get_hosts().is_empty() && config.get_hosts().iter().all(is_socket) {
            config.ssl_mode(SslMode::Disable);
        }
        if config.get_application_name().is_none() {
            config.application_name(APPLICATION_NAME);
        }
        // Settings of the connection string come last, so they win.
        let options = match config.get_options() {
            Some(own) => format!("{SESSION_OPTIONS} {own}"),
            None => SESSION_OPTIONS.to_owned(),
        };
        config.options(options);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        config
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES);
        Self {
            config,
            verification,
            ca_file,
        }
    }

    /// Whether somebody between here and another machine could pass for the database.
    pub(super) fn is_exposed(&self) -> bool {
        let is_remote = |host: &Host| match host {
            Host::Tcp(name) => {
                let address = name.parse::<IpAddr>();
                name != "localhost" && !address.is_ok_and(|it| it.is_loopback())
            }
            Host::Unix(_) => false,
        };
        let mut addresses = self.config.get_hostaddrs().iter();
        self.verification != Verification::ChainAndName
            && (self.config.get_hosts().iter().any(is_remote)
                || addresses.any(|address| !address.is_loopback()))
    }

    pub(super) fn manager(&self) -> Result<PostgresConnectionManager<MakeRustlsConnect>, Error> {
        let tls = tls::connector(self.verification, self.ca_file.as_deref())?;
        Ok(PostgresConnectionManager::new(self.config.clone(), tls))
    }

    /// `host:port/database`, for logs and errors.
    pub(super) fn place(&self) -> String {
        let config = &self.config;
        let mut hosts: Vec<String> = Vec::new();
        for (index, host) in config.get_hosts().iter().enumerate() {
            let ports = config.get_ports();
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            hosts.push(match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(dir) => dir.display().to_string(),
            });
        }
        if hosts.is_empty() {
            hosts.extend(config.get_hostaddrs().iter().map(ToString::to_string));
        }
        match config.get_dbname() {
            Some(database) => format!("{}/{database}", hosts.join(",")),
            None => hosts.join(","),
        }
    }
}

fn malformed() -> Error {
    Error::Configuration(
        "--database-url (DATABASE_URL) is not a connection string of PostgreSQL: write \
         postgres://user:password@host:port/database, special characters percent-encoded"
            .to_owned(),
    )
}

/// libpq's meaning of `sslmode`, with `verify-full` as the default where a CA is given.
fn tls_mode(mode: Option<&str>, has_ca: bool) -> Result<(SslMode, Verification), Error> {
    Ok(match mode {
        None if has_ca => (SslMode::Require, Verification::ChainAndName),
        None | Some("prefer") => (SslMode::Prefer, Verification::None),
        Some("disable") => (SslMode::Disable, Verification::None),
        // libpq checks the chain here when there is a CA to check it with.
        Some("require") if has_ca => (SslMode::Require, Verification::Chain),
        Some("require") => (SslMode::Require, Verification::None),
        Some("verify-ca") => (SslMode::Require, Verification::Chain),
        Some("verify-full") => (SslMode::Require, Verification::ChainAndName),
        Some(_) => {
            return Err(Error::Configuration(
                "the sslmode in --database-url (DATABASE_URL) is not supported: use disable, \
                 prefer, require, verify-ca or verify-full"
                    .to_owned(),
            ));
        }
    })
}

/// The connection string without `sslmode` and `sslrootcert`, of which the driver knows too little,
/// and the values of those two.
fn split_tls_parameters(text: &str) -> (String, Option<String>, Option<String>) {
    let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
    // A password may hold a question mark: the query comes after it.
    let host_at = text.find('@').unwrap_or(0);
    let query_at = text[host_at..].find('?').map(|offset| host_at + offset);
    let (head, parameters, separator) = match query_at {
        Some(at) if is_url => (Some(&text[..at]), text[at + 1..].split('&').collect(), "&"),
        _ if is_url => return (text.to_owned(), None, None),
        _ => (None, split_pairs(text), " "),
    };
    let (mut mode, mut root_cert) = (None, None);
    let mut kept = Vec::new();
    for parameter in parameters {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = if is_url {
            percent_decode_str(value).decode_utf8_lossy().into_owned()
        } else {
            unquote(value.trim())
        };
        match key.trim() {
            "sslmode" => mode = Some(value),
            "sslrootcert" => root_cert = Some(value),
            _ => kept.push(parameter),
        }
    }
    let kept = kept.join(separator);
    let rest = match head {
        Some(head) if kept.is_empty() => head.to_owned(),
        Some(head) => format!("{head}?{kept}"),
        None => kept,
    };
    (rest, mode, root_cert)
}

/// Splits `key=value` pairs at the spaces outside of quotes and not around the equals sign.
fn split_pairs(text: &str) -> Vec<&str> {
    let mut pairs = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' => quoted = !quoted,
            _ if character.is_whitespace() && !quoted => {
                let ends_key = text[start..at].trim().ends_with('=');
                let is_key = !text[start..at].contains('=');
                if !ends_key && !is_key && !text[at..].trim_start().starts_with('=') {
                    pairs.push(&text[start..at]);
                    start = at;
                }
            }
            _ => {}
        }
    }
    pairs.push(&text[start..]);
    pairs
}

fn unquote(value: &str) -> String {
    let inner = value
        .strip_prefix('\'')
        .and_then(|rest| rest.strip_suffix('\''))
        .unwrap_or(value);
    let mut characters = inner.chars();
    let mut plain = String::new();
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' {
            characters.next()
        } else {
            Some(character)
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes(text: &str) -> (SslMode, Verification, Option<PathBuf>) {
        let options = Options::parse(text, None).unwrap();
        (
            options.config.get_ssl_mode(),
            options.verification,
            options.ca_file,
        )
    }

    #[test]
    fn sslmode_means_what_libpq_says() {
        let url = "postgres://alice:pw@db.example:5433/bookings";
        let mode = |mode: &str| modes(&format!("{url}?connect_timeout=1&sslmode={mode}"));
        assert_eq!(modes(url), (SslMode::Prefer, Verification::None, None));
        assert_eq!(
            mode("disable"),
            (SslMode::Disable, Verification::None, None)
        );
        assert_eq!(mode("prefer"), (SslMode::Prefer, Verification::None, None));
        assert_eq!(
            mode("require"),
            (SslMode::Require, Verification::None, None)
        );
        assert_eq!(
            mode("verify-ca"),
            (SslMode::Require, Verification::Chain, None)
        );
        assert_eq!(
            mode("verify-full"),
            (SslMode::Require, Verification::ChainAndName, None)
        );
        let error = Options::parse(&format!("{url}?sslmode=allow"), None).unwrap_err();
        assert!(error.to_string().contains("use disable"), "{error}");
    }

    #[test]
    fn a_ca_asks_for_verification() {
        let ca = Some(PathBuf::from("/etc/my ca.pem"));
        let url = "postgres://db.example/bookings?sslrootcert=/etc/my%20ca.pem";
        assert_eq!(
            modes(url),
            (SslMode::Require, Verification::ChainAndName, ca.clone())
        );
        let require = format!("{url}&sslmode=require");
        assert_eq!(modes(&require), (SslMode::Require, Verification::Chain, ca));
        let given = Options::parse(url, Some(Path::new("/other.pem"))).unwrap();
        assert_eq!(given.ca_file, Some("/other.pem".into()));
    }

    #[test]
    fn a_database_elsewhere_that_anybody_could_pass_for_is_exposed() {
        for (text, is_exposed) in [
            ("postgres://u@db.example/x", true),
            ("postgres://u@db.example/x?sslmode=disable", true),
            ("postgres://u@db.example/x?sslmode=verify-ca", true),
            ("host=a,localhost hostaddr=10.0.0.1,127.0.0.1", true),
            ("postgres://u@db.example/x?sslmode=verify-full", false),
            ("postgres://u@db.example/x?sslrootcert=/ca.pem", false),
            ("postgres://u@localhost/x", false),
            ("postgres://u@127.0.0.1,127.0.0.2/x", false),
            ("postgres://u@[::1]/x", false),
            ("host=/run/postgresql", false),
        ] {
            let options = Options::parse(text, None).unwrap();
            assert_eq!(options.is_exposed(), is_exposed, "{text}");
        }
    }

    #[test]
    fn key_value_pairs_work_as_well() {
        let text = r"host=db.example password='it\'s a sslmode=x' sslmode = 'verify-ca' sslrootcert=/a\ b user=al";
        let options = Options::parse(text, None).unwrap();
        assert_eq!(
            options.config.get_password(),
            Some(&b"it's a sslmode=x"[..])
        );
        assert_eq!(options.config.get_user(), Some("al"));
        assert_eq!(options.verification, Verification::Chain);
        assert_eq!(options.ca_file, Some("/a b".into()));
    }

    #[test]
    fn own_settings_come_after_ours_and_the_name_is_kept() {
        let text = "host=h options='-c statement_timeout=1s' application_name=mine";
        let config = Options::parse(text, None).unwrap().config;
        let options = config.get_options().unwrap();
        assert!(
            options.starts_with(SESSION_OPTIONS) && options.ends_with("=1s"),
            "{options}"
        );
        assert_eq!(config.get_application_name(), Some("mine"));
    }

    #[test]
    fn a_wrong_string_is_not_repeated() {
        for text in [
            "postgres://u:s3cret@h:port/db",
            "password=s3cret=x",
            "postgres://u:s3cret@h?x",
            "nonsense s3cret",
        ] {
            let error = Options::parse(text, None).unwrap_err();
            let all = format!("{error} {error:?}");
            assert!(
                all.contains("DATABASE_URL") && !all.contains("s3cret"),
                "{all}"
            );
        }
        let options = Options::parse("postgres://u:s3cret@h,g:1/db", None).unwrap();
        assert!(!format!("{options:?}").contains("s3cret"));
        assert_eq!(options.place(), "h:5432,g:1/db");
    }
}
