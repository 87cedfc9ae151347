//! What the command line accepts, defaults to, refuses and hides.

use super::*;

const URL: &str = "postgres://alice:s3cret@db.example/bookings";

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from_args(line.split_whitespace())
}

fn serve(line: &str) -> ServeOptions {
    match parse(line).unwrap() {
        Command::Serve(options) => options,
        Command::Migrate(_)
        | Command::Maintain(_)
        | Command::Schema(_)
        | Command::Healthcheck(_) => panic!("not serve: {line}"),
    }
}

fn error(line: &str) -> String {
    parse(line).unwrap_err().to_string()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn serve_is_the_default_command() {
    for line in [
        "booking-service --listen 127.0.0.1:1",
        "booking-service serve --listen 127.0.0.1:1",
    ] {
        assert_eq!(serve(line).listen.port(), 1);
    }
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let options = serve("booking-service");
    assert_eq!(options.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(options.request_timeout, Duration::from_secs(10));
    assert_eq!(options.request_timeout_max, Duration::from_mins(1));
    assert_eq!(options.drain_delay, Duration::from_secs(2));
    assert_eq!(options.drain_timeout, Duration::from_secs(20));
    assert_eq!(options.pool_size, 16);
    assert_eq!(options.max_connections, 10_000);
    assert_eq!(options.max_concurrent_requests, 4_096);
    assert_eq!(options.database.cluster_user, "admin");
    assert_eq!(options.log.log_format, LogFormat::Auto);
    assert_eq!(options.log.log, "info");
}

#[test]
fn nothing_is_monitored_unless_asked_for() {
    let options = serve("booking-service").monitoring;
    assert_eq!(
        (options.metrics_listen, options.otlp_endpoint),
        (None, None)
    );
    assert!((options.trace_ratio - 1.0).abs() < f64::EPSILON);
    assert_eq!(options.trace_service_name, "booking-service");

    let line = "booking-service --metrics-listen [::]:9464 --otlp-endpoint http://c:4317";
    let options = serve(line).monitoring;
    assert_eq!(
        options.metrics_listen.map(|address| address.port()),
        Some(9464)
    );
    assert_eq!(options.otlp_endpoint.as_deref(), Some("http://c:4317"));
    let line = "booking-service --otlp-endpoint https://c:4317 --otlp-ca-file /ca.pem";
    let options = serve(line).monitoring;
    assert_eq!(options.otlp_endpoint.as_deref(), Some("https://c:4317"));
    assert_eq!(options.otlp_ca_file, Some("/ca.pem".into()));
    for wrong in [
        "--otlp-endpoint ftp://c:4317",
        "--otlp-endpoint c:4317",
        "--trace-ratio 1.1",
        "--trace-ratio NaN",
        "--metrics-listen 9464",
    ] {
        error(&format!("booking-service {wrong}"));
    }
}

#[test]
fn database_options_are_valid_with_every_command() {
    for line in ["serve", "migrate", "maintain", "schema drop --yes"] {
        let command = parse(&format!("booking-service {line} --data-dir /d")).unwrap();
        let (Command::Serve(ServeOptions { database, .. })
        | Command::Migrate(MigrateOptions { database, .. })
        | Command::Maintain(MaintainOptions { database, .. })
        | Command::Schema(SchemaCommand::Drop(DropOptions { database, .. }))) = command
        else {
            panic!("no database: {line}")
        };
        assert_eq!(database.data_dir, Some("/d".into()));
    }
}

#[test]
fn migrate_takes_what_to_print_and_several_iam_roles() {
    let line = "booking-service migrate --print dsql --iam-role a --iam-role b";
    let Command::Migrate(options) = parse(line).unwrap() else {
        panic!("not migrate")
    };
    assert_eq!(options.print, Some(SqlDialect::Dsql));
    assert_eq!(options.serve_role, "booking_service");
    assert_eq!(options.iam_roles, ["a", "b"]);
}

#[test]
fn dropping_the_schema_needs_a_yes() {
    assert!(error("booking-service schema drop").contains("--yes"));
}

#[test]
fn a_value_out_of_range_is_refused_by_name() {
    for option in [
        "--pool-size 0",
        "--pool-size 1001",
        "--request-timeout 0s",
        "--drain-timeout ten",
        "--max-connections 0",
        "--listen nowhere",
    ] {
        let message = error(&format!("booking-service {option}"));
        let name = option.split(' ').next().unwrap();
        assert!(message.lines().next().unwrap().contains(name), "{message}");
    }
    assert_eq!(
        serve("booking-service --drain-delay 0s").drain_delay,
        Duration::ZERO
    );
}

#[test]
fn a_password_is_in_no_debug_output() {
    let options = serve(&format!("booking-service --database-url {URL}"));
    assert_eq!(
        options.database.database_url.as_ref().unwrap().expose(),
        URL
    );
    let debug = format!("{options:?}");
    assert!(
        !debug.contains("s3cret") && debug.contains("***"),
        "{debug}"
    );
}

/// The environment belongs to the whole process, so this test runs itself again in a child.
#[test]
fn the_environment_is_read_without_showing_secrets_and_empty_means_unset() {
    if std::env::var_os("BOOKING_TEST_CHILD").is_none() {
        let name =
            "config::tests::the_environment_is_read_without_showing_secrets_and_empty_means_unset";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .envs([("BOOKING_TEST_CHILD", "1"), ("DATABASE_URL", URL)])
            .envs([("BOOKING_POOL_SIZE", ""), ("BOOKING_DRAIN_DELAY", "500ms")])
            .envs([("CLUSTER_ENDPOINT", ""), ("BOOKING_DATA_DIR", "")])
            .status();
        assert!(status.unwrap().success());
        return;
    }
    for line in ["booking-service", "booking-service serve"] {
        let options = serve(line);
        assert_eq!(options.pool_size, 16);
        assert_eq!(options.drain_delay, Duration::from_millis(500));
        assert_eq!(options.database.cluster_endpoint, None);
        assert_eq!(options.database.data_dir, None);
        assert_eq!(options.database.database_url.unwrap().expose(), URL);
    }
    for line in [
        "--help",
        "serve --help",
        "migrate --help",
        "schema drop --help",
    ] {
        let help = error(&format!("booking-service {line}"));
        assert!(help.contains("--database-url"), "{help}");
        assert!(!help.contains("s3cret"), "{help}");
    }
}

#[test]
fn everybody_gets_in_by_default_and_only_from_this_machine() {
    let options = serve("booking-service");
    assert!(options.listen.ip().is_loopback());
    assert!(!options.tls.allow_plaintext);
    assert_eq!(options.tls.tls_cert_file, None);
    assert_eq!(options.tls.health_listen, None);
    assert_eq!(options.sign_in.jwks_file, None);
    assert_eq!(options.sign_in.jwt_leeway, Duration::from_secs(30));
    assert_eq!(options.sign_in.scope_admin, "bookings.admin");
    assert_eq!(options.caller_limits.rate_limit, 0);
    assert_eq!(options.caller_limits.max_streams_per_connection, 100);
    assert_eq!(
        options.caller_limits.connection_age,
        Duration::from_mins(30)
    );
}

#[test]
fn keys_for_tokens_come_from_one_place_and_for_one_issuer_and_audience() {
    let whose = "--jwt-issuer i --jwt-audience a";
    let options = serve(&format!("booking-service --jwks-file f {whose}"));
    assert_eq!(options.sign_in.jwks_file, Some("f".into()));
    assert!(error("booking-service --jwks-file f --jwt-issuer i").contains("--jwt-audience"));
    let both = format!("booking-service --jwks-file f --jwks-url u {whose}");
    assert!(error(&both).contains("cannot be used with"));
    let certificates = "--tls-cert-file c --tls-key-file k --tls-client-ca-file a";
    let both = format!("booking-service --mtls-scopes-file m {certificates} --jwks-file f {whose}");
    assert!(error(&both).contains("cannot be used with"));
    assert!(error("booking-service --jwt-leeway 301s").contains("at most 5m"));
}
