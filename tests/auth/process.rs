//! What the program itself refuses to do.

use std::process::{Command, Stdio};

use crate::transport::{Authority, dns};

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_booking-service"))
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let log = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(log).unwrap())
}

/// Nobody listens there, so that the program gets no further.
const NO_DATABASE: [&str; 2] = ["--database-url", "postgres://nobody@127.0.0.1:1/none"];

#[test]
fn plaintext_beyond_loopback_has_to_be_asked_for() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let (code, log) = run(&["--listen", address]);
        assert_eq!(code, Some(2), "{log}");
        for remedy in [
            "--tls-cert-file",
            "--tls-key-file",
            "127.0.0.1",
            "--allow-plaintext",
        ] {
            assert!(log.contains(remedy), "{log}");
        }
        let lines = log.lines().filter(|line| line.starts_with("error:"));
        assert_eq!(lines.count(), 1, "{log}");
    }
    let (code, log) = run(&[
        &["--listen", "0.0.0.0:0", "--allow-plaintext"][..],
        &NO_DATABASE,
    ]
    .concat());
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("serving without TLS"), "{log}");
    assert!(log.contains("serving without sign-in"), "{log}");
    let (_, log) = run(&[&["--listen", "127.0.0.1:0"][..], &NO_DATABASE].concat());
    assert!(!log.contains("serving without"), "{log}");
}

/// It starts, since a certificate may be renewed any moment; but somebody has to know.
#[test]
fn an_expired_certificate_is_mentioned() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let files = [
        "--listen",
        "127.0.0.1:0",
        "--tls-cert-file",
        certificate,
        "--tls-key-file",
        key,
    ];
    let arguments = [&files[..], &NO_DATABASE].concat();
    for (year, is_mentioned) in [(2020, true), (4000, false)] {
        let identity = authority.issue_until(vec![dns("localhost")], year);
        identity.write(dir.path());
        let (code, log) = run(&arguments);
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("cannot reach the database"), "{log}");
        assert_eq!(
            log.contains("it expired at 2020-01-01"),
            is_mentioned,
            "{log}"
        );
    }
}

#[test]
fn files_that_were_mixed_up_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let authority = Authority::new();
    authority
        .issue_until(vec![dns("localhost")], 4000)
        .write(dir.path());
    let other = authority.issue_until(vec![dns("localhost")], 4000);
    std::fs::write(path("other.key"), other.key).unwrap();
    let (certificate, key, other) = (path("tls.crt"), path("tls.key"), path("other.key"));
    for (certificate, key, complaint) in [
        (&key, &key, "the first file has no certificate"),
        (
            &certificate,
            &certificate,
            "the second file has no private key",
        ),
        (&certificate, &other, "is not that of the certificate"),
    ] {
        let files = ["--tls-cert-file", certificate, "--tls-key-file", key];
        let (code, log) = run(&[&files[..], &["--listen", "127.0.0.1:0"], &NO_DATABASE].concat());
        assert_eq!(code, Some(1), "{log}");
        for words in [complaint, certificate, key] {
            assert!(log.contains(words), "{log}");
        }
    }
}

#[test]
fn options_that_leave_a_door_half_open_are_refused() {
    for (arguments, complaint) in [
        (&["--tls-cert-file", "a.pem"][..], "--tls-key-file"),
        (&["--tls-client-ca-file", "a.pem"], "--tls-cert-file"),
        (&["--jwks-file", "a.json"], "--jwt-issuer"),
        (
            &["--jwks-url", "https://a.test/", "--jwt-issuer", "i"],
            "--jwt-audience",
        ),
        // Else an empty BOOKING_JWKS_URL would let everybody in.
        (
            &["--jwt-issuer", "i", "--jwt-audience", "a"],
            "--jwks-file <FILE>|--jwks-url <URL>",
        ),
        (&["--mtls-scopes-file", "a.json"], "--tls-client-ca-file"),
        (&["--jwt-leeway", "6m"], "at most 5m"),
        (
            &[
                "--jwks-url",
                "http://issuer.test/",
                "--jwt-issuer",
                "i",
                "--jwt-audience",
                "a",
            ],
            "must be https",
        ),
        (
            &[
                "--jwks-file",
                "/none.json",
                "--jwt-issuer",
                "i",
                "--jwt-audience",
                "a",
                "--listen",
                "127.0.0.1:0",
            ],
            "/none.json",
        ),
        (
            &[
                "--tls-cert-file",
                "/none.pem",
                "--tls-key-file",
                "/none.pem",
                "--listen",
                "127.0.0.1:0",
            ],
            "/none.pem",
        ),
    ] {
        let (code, log) = run(arguments);
        assert_ne!(code, Some(0), "{log}");
        assert!(log.contains(complaint), "{arguments:?}: {log}");
    }
}
