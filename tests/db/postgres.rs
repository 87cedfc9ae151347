//! PostgreSQL by URL: what each `sslmode` admits, and how a refusal reads.

use std::path::PathBuf;

use booking_service::db::embedded::{Options, Server};
use booking_service::db::{Database, Error, Target, postgres};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::certificates::{Authority, Identity};
use crate::support::{chain, give_to_server, temp_dir, write};

const PASSWORD: &str = "s3cret";

/// A server with TLS and passwords on a TCP port, its certificate for `localhost` only.
struct TlsServer {
    dir: TempDir,
    port: u16,
    ca: PathBuf,
    stranger: PathBuf,
    _server: Server,
}

impl TlsServer {
    /// `None` where the PostgreSQL at hand was built without TLS, as the carried one is.
    async fn start() -> Option<Self> {
        let dir = temp_dir();
        let authority = Authority::new();
        let Identity { certificate, key } = authority.issue("localhost");
        // A first start makes the cluster, and tells whom the files must belong to.
        let first = Server::start(&Options::new(dir.path())).await.unwrap();
        let database = Database::open(&first.target("booking")).await.unwrap();
        let client = database.connect().await.unwrap();
        let role = format!("CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'");
        client.batch_execute(&role).await.unwrap();
        let library = client
            .query_one("SELECT current_setting('ssl_library')", &[])
            .await;
        let has_tls = !library.unwrap().get::<_, &str>(0).is_empty();
        first.stop().await.unwrap();
        if !has_tls {
            eprintln!("skipped: this PostgreSQL has no TLS");
            return None;
        }

        let rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        let settings = [
            (
                "ssl_cert_file",
                write(dir.path(), "server.pem", &certificate),
            ),
            ("ssl_key_file", write(dir.path(), "server.key", &key)),
            ("hba_file", write(dir.path(), "hba.conf", rules)),
        ];
        for (_, file) in &settings {
            give_to_server(file, dir.path());
        }
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = unused.local_addr().unwrap().port();
        drop(unused);
        let mut options = Options::new(dir.path());
        for (name, path) in settings {
            let path = path.to_str().unwrap().to_owned();
            options.settings.push((name.to_owned(), path));
        }
        for (name, value) in [("ssl", "on"), ("listen_addresses", "127.0.0.1")] {
            options.settings.push((name.to_owned(), value.to_owned()));
        }
        // The socket is named after the port; a link keeps the name that `Server` looks for.
        let link = dir.path().join("socket/.s.PGSQL.5432");
        std::os::unix::fs::symlink(format!(".s.PGSQL.{port}"), link).unwrap();
        options.settings.push(("port".to_owned(), port.to_string()));
        Some(Self {
            ca: authority.write(dir.path(), "ca.pem"),
            stranger: Authority::new().write(dir.path(), "stranger.pem"),
            _server: Server::start(&options).await.unwrap(),
            port,
            dir,
        })
    }

    async fn open(&self, password: &str, host: &str, parameters: &str) -> Result<Database, Error> {
        let port = self.port;
        let url = format!("postgres://app:{password}@{host}:{port}/booking?{parameters}");
        Database::open(&Target::Postgres(postgres::Options::parse(&url, None)?)).await
    }
}

#[tokio::test]
async fn each_sslmode_checks_what_libpq_says() {
    let Some(server) = TlsServer::start().await else {
        return;
    };
    let (ca, stranger) = (server.ca.display(), server.stranger.display());
    let admitted = [
        ("localhost", "sslmode=prefer".to_owned()),
        ("127.0.0.1", "sslmode=require".to_owned()),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={ca}")),
        ("localhost", format!("sslmode=verify-full&sslrootcert={ca}")),
        ("localhost", format!("sslrootcert={ca}")),
    ];
    for (host, parameters) in admitted {
        let database = server.open(PASSWORD, host, &parameters).await.unwrap();
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let client = database.connect().await.unwrap();
        let encrypted: bool = client.query_one(sql, &[]).await.unwrap().get(0);
        assert!(encrypted, "{parameters}");
    }
    let refused = [
        (
            "localhost",
            "sslmode=disable".to_owned(),
            "refused the sign-in",
        ),
        (
            "localhost",
            "sslmode=verify-full".to_owned(),
            "--db-ca-file",
        ),
        (
            "localhost",
            format!("sslmode=require&sslrootcert={stranger}"),
            "--db-ca-file",
        ),
        (
            "localhost",
            format!("sslmode=verify-ca&sslrootcert={stranger}"),
            "--db-ca-file",
        ),
        (
            "localhost",
            format!("sslmode=verify-full&sslrootcert={stranger}"),
            "--db-ca-file",
        ),
        (
            "127.0.0.1",
            format!("sslmode=verify-full&sslrootcert={ca}"),
            "another host name",
        ),
        (
            "127.0.0.1",
            format!("sslrootcert={ca}"),
            "another host name",
        ),
    ];
    for (host, parameters, expected) in refused {
        let error = server.open(PASSWORD, host, &parameters).await.unwrap_err();
        assert!(
            error.to_string().contains(expected),
            "{parameters}: {}",
            chain(&error)
        );
    }
    assert!(server.dir.path().exists());
}

#[tokio::test]
async fn a_wrong_password_is_one_line_without_it() {
    let Some(server) = TlsServer::start().await else {
        return;
    };
    let error = server
        .open("wr0ng", "localhost", "sslmode=require")
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("refused the sign-in") && !text.contains('\n'),
        "{text}"
    );
    assert!(!format!("{} {error:?}", chain(&error)).contains("wr0ng"));
}

/// Answers whoever connects with one error, as a server does before there is a session.
async fn refuse_all(code: &'static str, message: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let length = client.read_u32().await.unwrap();
            let mut startup = vec![0; length as usize - 4];
            client.read_exact(&mut startup).await.unwrap();
            let fields = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
            let mut answer = vec![b'E'];
            answer.extend(u32::try_from(fields.len() + 4).unwrap().to_be_bytes());
            answer.extend(fields.as_bytes());
            client.write_all(&answer).await.unwrap();
        }
    });
    port
}

/// What `PgBouncer`, an older one and a newer one, and RDS Proxy say.
#[tokio::test]
async fn a_pooler_that_takes_no_session_settings_is_told_apart() {
    for (code, message) in [
        ("08P01", "unsupported startup parameter: options"),
        ("08P01", "unsupported startup parameter in options: jit"),
        (
            "0A000",
            "RDS Proxy currently doesn't support command-line options.",
        ),
    ] {
        let port = refuse_all(code, message).await;
        let url = format!("postgres://app@127.0.0.1:{port}/booking?sslmode=disable");
        let options = postgres::Options::parse(&url, None).unwrap();
        let error = Database::open(&Target::Postgres(options))
            .await
            .unwrap_err();
        let error = error.to_string();
        for words in ["poolers", "connect to PostgreSQL itself", message] {
            assert!(error.contains(words), "{error}");
        }
    }
}
