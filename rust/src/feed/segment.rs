//! What is read together: one unit, a shuffle window, or the scattered documents that a restored packer holds.

use std::sync::Arc;

use super::Wanted;
use crate::piece::Piece;
use crate::reorder::Reorder;
use crate::row_groups::UnitReader;
use crate::state::Waiting;

/// A unit that is being read.
#[derive(Debug)]
pub(super) struct UnitRead {
    pub(super) ordinal: u64,
    pub(super) group: u64,
    /// `None` while a thread reads with it, and once every row was read.
    pub(super) reader: Option<UnitReader>,
    pub(super) wanted: Option<Arc<Vec<Wanted>>>,
    pub(super) finished: bool,
    /// Documents found in it.
    pub(super) num_documents: u64,
    /// Pieces without a document, which take no memory that `queued_bytes` knows of.
    pub(super) num_empty: usize,
    /// Whether it is read from its first row on, all of it.
    pub(super) is_whole: bool,
    /// Steps given out …
    pub(super) issued: u64,
    /// … and come back as pieces.
    pub(super) deposited: u64,
    pub(super) pieces: Reorder<Piece>,
}

impl UnitRead {
    /// Whether pages of it are held that no thread reads.
    pub(super) fn is_open(&self) -> bool {
        self.reader.as_ref().is_some_and(UnitReader::is_open)
    }
}

/// How the documents of a segment follow each other.
#[derive(Debug)]
pub(super) enum Order {
    /// Piece by piece as the unit is read.
    Rows,
    /// All documents of the window, permuted; those before `from` are done.
    Permuted { first: u64, key: u64, from: u64, num_documents: u64, starts: Vec<Start> },
    /// The documents that a restored packer holds.
    Listed(Vec<Waiting>),
}

/// Where a unit of a window begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) ordinal: u64,
    /// Documents of the window before it.
    pub(super) place: u64,
    /// Its first row.
    pub(super) row: u64,
}

/// What has to be complete before its documents can be ordered.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) order: Order,
    pub(super) units: Vec<UnitRead>,
}

impl Segment {
    /// Whether everything is read and come back.
    pub(super) fn is_complete(&self) -> bool {
        self.units.iter().all(|unit| unit.finished && unit.deposited == unit.issued)
    }

    /// Whether the packer waits for what nobody reads yet.
    pub(super) fn must_go_on(&self) -> bool {
        match self.order {
            Order::Rows => {
                self.units.iter().all(|unit| unit.issued == unit.deposited && unit.pieces.is_empty())
            }
            Order::Permuted { .. } | Order::Listed(_) => true,
        }
    }
}

/// All pieces of units, in order.
pub(super) fn pieces_of(units: &mut [UnitRead]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for unit in units {
        while let Some(piece) = unit.pieces.pop() {
            pieces.push(piece);
        }
    }
    pieces
}
