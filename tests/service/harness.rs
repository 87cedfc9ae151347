//! What the tests stand on: a real PostgreSQL, a database for each test, real sockets.

use std::future::Future;
use std::sync::LazyLock;

use booking_service::db::Database;
use booking_service::pb;
use booking_service::pb::booking_service_client::BookingServiceClient;
use booking_service::server::{self, Shutdown};
use booking_service::store::{LaneOptions, STATEMENTS, Store, schema};
use prost_types::Timestamp;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{OnceCell, oneshot};
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt;

use crate::postgres::{self, FreshDatabase, Wire};

pub(crate) type Client = BookingServiceClient<Channel>;

/// All tests run on one runtime, so that what they share outlives each of them.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
    RUNTIME.block_on(test)
}

/// A database with the schema in it.
pub(crate) struct House {
    database: FreshDatabase,
    admin: tokio_postgres::Client,
    shared_instance: OnceCell<Instance>,
}

static SHARED: OnceCell<House> = OnceCell::const_new();

impl House {
    /// A database of its own.
    pub(crate) async fn new() -> Self {
        let database = postgres::fresh_database().await;
        schema::migrate(&database.database, &schema::Options::default())
            .await
            .expect("migrated");
        let admin = database.database.connect().await.expect("connected");
        Self {
            database,
            admin,
            shared_instance: OnceCell::new(),
        }
    }

    /// The database of the tests that do not mind each other.
    pub(crate) async fn shared() -> &'static Self {
        SHARED.get_or_init(Self::new).await
    }

    /// Has PostgreSQL itself watch: with this constraint, whatever the service does, two blocking
    /// bookings that overlap are an error. Made of what every PostgreSQL has: a range of one number
    /// stands for the resource.
    pub(crate) async fn with_witness(self) -> Self {
        self.execute(
            "ALTER TABLE bookings ADD CONSTRAINT witness EXCLUDE USING gist (
             int8range(hashtextextended(resource, 0), hashtextextended(resource, 0), '[]') WITH &&,
             tstzrange(start_time, end_time) WITH &&) WHERE (state IN (1, 2))",
        )
        .await;
        self
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database.database
    }

    /// A way to this database that can break.
    pub(crate) async fn wire(&self) -> Wire {
        Wire::to(&self.database.name).await
    }

    /// A service on this database, shared by all who ask.
    pub(crate) async fn instance(&self) -> &Instance {
        self.shared_instance.get_or_init(|| self.start()).await
    }

    /// Another service on this database: a replica.
    pub(crate) async fn start(&self) -> Instance {
        Instance::start(self.database(), server::Options::default()).await
    }

    /// Runs SQL behind the service's back.
    pub(crate) async fn execute(&self, sql: &str) {
        self.admin.batch_execute(sql).await.expect("executed");
    }

    /// The one number that this query is about.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        self.admin
            .query_one(sql, &[])
            .await
            .expect("counted")
            .get(0)
    }

    /// How many pairs of blocking bookings overlap: asked of the database, of every pair.
    pub(crate) async fn overlaps(&self) -> i64 {
        self.count(
            "SELECT count(*) FROM bookings a JOIN bookings b ON a.resource = b.resource
             AND a.id < b.id AND a.start_time < b.end_time AND b.start_time < a.end_time
             WHERE (a.state = 2 OR a.state = 1 AND a.hold_expire_time > now())
             AND (b.state = 2 OR b.state = 1 AND b.hold_expire_time > now())",
        )
        .await
    }

    /// Lets time pass, for one booking only: its hold ran out a second ago.
    pub(crate) async fn let_expire(&self, name: &str) {
        let id: uuid::Uuid = name
            .strip_prefix("bookings/")
            .expect("a name")
            .parse()
            .expect("an id");
        let expire = "UPDATE bookings SET hold_expire_time = now() - interval '1 second'
                      WHERE id = $1 AND state = 1";
        assert_eq!(
            self.admin.execute(expire, &[&id]).await.expect("expired"),
            1
        );
    }
}

/// A running service. It stops when this value is dropped.
pub(crate) struct Instance {
    channel: Channel,
    _stop: oneshot::Sender<Shutdown>,
}

impl Instance {
    pub(crate) async fn start(database: &Database, options: server::Options) -> Self {
        let pool = postgres::pool(database, STATEMENTS);
        let store = Store::new(pool, LaneOptions::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { stopped.await.unwrap_or(Shutdown::Interrupted) };
        tokio::spawn(server::run(listener, store, options, shutdown));
        let endpoint = Channel::from_shared(format!("http://{address}")).expect("a URI");
        let channel = endpoint.connect().await.expect("connected");
        Self {
            channel,
            _stop: stop,
        }
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn client(&self) -> Client {
        BookingServiceClient::new(self.channel.clone())
    }
}

/// 2027-01-01T00:00:00Z, and this many hours.
pub(crate) fn hour(number: i64) -> Timestamp {
    minute(number * 60)
}

/// 2027-01-01T00:00:00Z, and this many minutes.
pub(crate) fn minute(number: i64) -> Timestamp {
    Timestamp {
        seconds: 1_798_761_600 + number * 60,
        nanos: 0,
    }
}

/// The seconds of an interval.
pub(crate) fn window(interval: &pb::Interval) -> std::ops::Range<i64> {
    let seconds = |time: Option<Timestamp>| time.expect("set").seconds;
    seconds(interval.start_time)..seconds(interval.end_time)
}

/// A booking of `resource` from one minute to another.
pub(crate) fn booking(resource: &str, from: i64, to: i64) -> pb::Booking {
    pb::Booking {
        resource: resource.to_owned(),
        start_time: Some(minute(from)),
        end_time: Some(minute(to)),
        booked_by: "ada".to_owned(),
        ..pb::Booking::default()
    }
}

pub(crate) fn create(booking: pb::Booking) -> pb::CreateBookingRequest {
    pb::CreateBookingRequest {
        booking: Some(booking),
        ..pb::CreateBookingRequest::default()
    }
}

/// The same, as a hold of this many seconds.
pub(crate) fn hold(booking: pb::Booking, seconds: i64) -> pb::CreateBookingRequest {
    let hold_ttl = Some(prost_types::Duration { seconds, nanos: 0 });
    pb::CreateBookingRequest {
        hold_ttl,
        ..create(booking)
    }
}

/// A resource that no other test uses.
pub(crate) fn fresh(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::new_v4())
}

/// The reason in the error's details.
pub(crate) fn reason_of(status: &Status) -> String {
    status
        .get_details_error_info()
        .map_or_else(String::new, |info| info.reason)
}
