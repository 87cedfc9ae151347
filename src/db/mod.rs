//! How a connection comes about (stand-in while the room is built elsewhere).

/// stand-in
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// stand-in
    Postgres,
    /// stand-in
    Dsql,
}
/// stand-in
pub struct Database;
/// stand-in
#[derive(Clone)]
pub struct Pool;
