//! How the domain's instants and days travel to and from PostgreSQL: in binary, as they are.

use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use crate::booking::{Timestamp, UtcDay};

/// Microseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800 * 1_000_000;

/// Days from the Unix epoch to PostgreSQL's.
const POSTGRES_EPOCH_DAYS: i32 = 10_957;

impl ToSql for Timestamp {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        (self.micros() - POSTGRES_EPOCH_MICROS).to_sql(ty, out)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Timestamp {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        // Infinity is the greatest i64: refused by the range, like anything else out of it.
        let micros = i64::from_sql(ty, raw)?.saturating_add(POSTGRES_EPOCH_MICROS);
        Ok(Self::from_micros(micros)?)
    }

    accepts!(TIMESTAMPTZ);
}

impl ToSql for UtcDay {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        (self.days() - POSTGRES_EPOCH_DAYS).to_sql(ty, out)
    }

    accepts!(DATE);
    to_sql_checked!();
}
