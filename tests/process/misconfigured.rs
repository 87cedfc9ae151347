//! What is wrong ends the start within seconds, with one line that says what to change.

use std::time::Duration;

use crate::program::{Program, run};

/// It fails with this exit code and one line, which has all of these words, and not the password.
async fn assert_refused(arguments: &[&str], code: i32, words: &[&str]) {
    let ended = run(arguments).await;
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    assert!(ended.took < Duration::from_secs(12), "{:?}", ended.took);
    let errors: Vec<&str> = ended
        .stderr
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    let [error] = errors.as_slice() else {
        panic!("one line: {}", ended.stderr)
    };
    for word in words {
        assert!(error.contains(word), "no {word:?} in {error:?}");
    }
    assert!(!ended.stderr.contains("s3cret"), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
}

const LISTEN: [&str; 2] = ["--listen", "127.0.0.1:0"];

#[tokio::test]
async fn two_databases_are_one_too_many() {
    let both = [
        "--database-url",
        "postgres://u:s3cret@localhost/x",
        "--cluster-endpoint",
        "abc.dsql.us-east-1.on.aws",
    ];
    assert_refused(&both, 2, &["--database-url", "--cluster-endpoint"]).await;
}

#[tokio::test]
async fn a_malformed_url_is_not_repeated() {
    assert_refused(
        &["--database-url", "s3cret@nowhere"],
        2,
        &["DATABASE_URL", "postgres://"],
    )
    .await;
}

#[tokio::test]
async fn nobody_listens_there() {
    let url = "postgres://u:s3cret@127.0.0.1:1/x";
    let arguments = [&LISTEN[..], &["--database-url", url]].concat();
    assert_refused(&arguments, 1, &["127.0.0.1:1"]).await;
}

#[tokio::test]
async fn a_host_that_is_no_cluster_has_no_region() {
    let arguments = [&LISTEN[..], &["--cluster-endpoint", "localhost:1"]].concat();
    assert_refused(&arguments, 2, &["--cluster-region", "AWS_REGION"]).await;
}

#[tokio::test]
async fn a_ca_file_that_is_not_there_is_named() {
    let arguments = [
        &LISTEN[..],
        &[
            "--database-url",
            "postgres://u:s3cret@127.0.0.1:1/x",
            "--db-ca-file",
            "/no/such/ca.pem",
        ],
    ]
    .concat();
    assert_refused(&arguments, 2, &["/no/such/ca.pem"]).await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = tempfile::tempdir().unwrap();
    let arguments = [
        "--listen",
        &address,
        "--data-dir",
        data.path().to_str().unwrap(),
    ];
    assert_refused(&arguments, 1, &[&address, "--listen"]).await;
}

#[tokio::test]
async fn binaries_that_are_not_there_are_named() {
    let data = tempfile::tempdir().unwrap();
    let data_dir = data.path().join("data");
    let arguments = [
        &LISTEN[..],
        &[
            "--data-dir",
            data_dir.to_str().unwrap(),
            "--pg-bin-dir",
            "/no/such/dir",
        ],
    ]
    .concat();
    assert_refused(&arguments, 1, &["/no/such/dir"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_serves_one_at_a_time() {
    let data = tempfile::tempdir().unwrap();
    let data_dir = data.path().join("data");
    let data_dir = data_dir.to_str().unwrap();
    let _first = Program::serve(&["--data-dir", data_dir]).await;
    let arguments = [&LISTEN[..], &["--data-dir", data_dir]].concat();
    assert_refused(&arguments, 1, &[data_dir, "--data-dir"]).await;
}

#[tokio::test]
async fn a_typo_in_an_option_is_told_with_the_usage() {
    let ended = run(&["--lisen", "127.0.0.1:0"]).await;
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("--listen"), "{}", ended.stderr);
}

#[tokio::test]
async fn help_shows_no_password() {
    let mut help = crate::program::command(&["--help"]);
    help.env("DATABASE_URL", "postgres://u:s3cret@localhost/x");
    let help = help.output().await.unwrap();
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(
        help.contains("DATABASE_URL") && !help.contains("s3cret"),
        "{help}"
    );
}
