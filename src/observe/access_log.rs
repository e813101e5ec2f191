//! placeholder
/// How a record is written.
#[derive(Debug, PartialEq, Eq)]
pub struct Format;
