//! The statements that every pooled connection carries, prepared once.

use super::{change, create, list, read, schema, transition};

macro_rules! statements {
    ($($name:ident = $sql:expr,)*) => {
        /// A statement, by its place in [`STATEMENTS`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Prepared { $($name,)* }

        /// The statements that a pool must prepare on each connection, in this order.
        pub const STATEMENTS: &[&str] = &[$($sql,)*];
    };
}

impl Prepared {
    /// Its name: the first line of every statement.
    pub(super) fn name(self) -> &'static str {
        let first = STATEMENTS[self as usize].lines().next();
        first
            .and_then(|line| line.strip_prefix("-- "))
            .unwrap_or("unnamed")
    }
}

statements! {
    CreateGuards = create::GUARDS,
    CreateClear = create::CLEAR,
    CreateInsert = create::INSERT,
    CreateInsertAll = create::INSERT_ALL,
    CreateOutcome = create::OUTCOME,
    UpdateGuards = change::GUARDS,
    UpdateClear = change::CLEAR,
    UpdateApply = change::APPLY,
    UpdateOutcome = change::OUTCOME,
    Confirm = transition::CONFIRM,
    Cancel = transition::CANCEL,
    Delete = transition::DELETE,
    Get = read::GET,
    Taken = read::TAKEN,
    SchemaVersion = schema::SCHEMA_VERSION,
    ListByResource = list::BY_RESOURCE,
    ScanByResource = list::SCAN_BY_RESOURCE,
    ListByBooker = list::BY_BOOKER,
    ScanByBooker = list::SCAN_BY_BOOKER,
    ListByName = list::BY_NAME,
}
