//! What a feed gives out to be done, and how it comes back.

use std::sync::Arc;

use crate::row_groups::UnitReader;

/// A piece of work: read the next rows of a unit, then tokenize them.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) source: u32,
    pub(super) segment: u64,
    pub(super) unit: usize,
    pub(super) sequence: u64,
    /// Reads the rows; goes back to the feed before tokenizing, so that another thread can read on.
    pub(crate) reader: UnitReader,
    /// The unit, as an ordinal of the lane.
    pub(crate) ordinal: u64,
    /// See `Document::group`.
    pub(crate) group: u64,
    /// Rows that are needed, ascending; `None`: all.
    pub(crate) wanted: Option<Arc<Vec<Wanted>>>,
    /// Whether they are what a restored packer holds.
    pub(crate) is_restoring: bool,
}

/// A row that is needed, from byte `byte_offset` of its text on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wanted {
    pub(crate) row: u64,
    pub(crate) byte_offset: u64,
}

/// Where a finished piece belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(crate) source: u32,
    pub(super) segment: u64,
    pub(super) unit: usize,
    pub(super) sequence: u64,
}
