//! Positions, the token ledger, and the versioned state that a loader is resumed from.
//!
//! A state holds positions, never tokens or text: where the next document of each lane is, and where the
//! documents are that wait in the lane's packer. Everything here is plain data.

mod identity;
mod json;
mod ledger;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::quarantine::Quarantine;

pub use identity::{Identity, ShardIdentity, SourceIdentity};
pub use json::{FORMAT, VERSION};
pub use ledger::Ledger;

/// A document of a lane: row `row` of the lane's `ordinal`-th unit.
///
/// As a position it names the next document to admit; with shuffle `ordinal` is then the window's first unit
/// and `row` the index within the permuted window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// Which source of a mixture; else 0.
    pub source: u32,
    /// Which unit of the lane, counted over all epochs.
    pub ordinal: u64,
    /// Row within the row group (not within the unit).
    pub row: u64,
}

/// A document that a packer holds, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The document.
    pub address: Address,
    /// A byte of the document from which tokenizing gives the same ids; 0 is always one.
    pub byte_offset: u64,
    /// Tokens behind `byte_offset` that are already used up (`concat` counts the BOS as one).
    pub skip_tokens: u64,
    /// How many documents the lane had admitted before it.
    pub arrival: u64,
}

/// All that a packer remembers between two batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackerState {
    /// Documents admitted by the lane so far.
    pub arrivals: u64,
    /// The documents it holds, in its own order.
    pub waiting: Vec<Waiting>,
}

/// Where a lane stands in one source. The counters are those of a mixture, and stay 0 without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceEntry {
    /// The next document to admit.
    pub position: Address,
    /// Tokens admitted since counters began anew, BOS included.
    pub admitted: u64,
    /// Whether it has dropped out.
    pub has_run_out: bool,
    /// Tokens admitted in all, BOS included.
    pub read: u64,
    /// Tokens delivered as targets that are learned, without BOS.
    pub trained: u64,
}

/// Where one lane stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneEntry {
    /// In each source.
    pub sources: Vec<SourceEntry>,
    /// What its packer holds.
    pub packer: PackerState,
    /// Where its tokens went.
    pub ledger: Ledger,
    /// What it has left out so far.
    pub quarantine: Quarantine,
}

impl LaneEntry {
    /// The beginning of all data.
    pub fn beginning(num_sources: usize) -> Self {
        let position = |source| Address { source, ..Address::default() };
        let sources = (0..num_sources as u32)
            .map(|source| SourceEntry { position: position(source), ..SourceEntry::default() });
        Self { sources: sources.collect(), ..Self::default() }
    }
}

/// A rank's state, or that of several ranks together.
#[derive(Clone, Debug, PartialEq)]
pub struct LoaderState {
    /// What it belongs to: one object for all states of a loader.
    pub identity: Arc<Identity>,
    /// The rank that it was taken on; `None` when it holds those of all ranks.
    pub rank: Option<usize>,
    /// Number of ranks when it was taken.
    pub world_size: usize,
    /// Complete rounds.
    pub round: u64,
    /// Batches that each rank has delivered in the round at hand.
    pub turn: u64,
    /// Rows a batch when it was taken.
    pub batch_size: usize,
    /// Inputs a row when it was taken.
    pub sequence_length: usize,
    /// Weights of a mixture's sources when it was taken.
    pub weights: Vec<f64>,
    /// Where each lane stands.
    pub lanes: BTreeMap<usize, LaneEntry>,
}

impl LoaderState {
    /// The states of all ranks as one, which any world size that divides the lanes can take up at a round's end.
    pub fn merge(states: Vec<Self>) -> Result<Self> {
        let refuse = |reason: String| Err(Error::State { reason });
        let mut states = states.into_iter();
        let Some(mut whole) = states.next() else { return refuse("no states to merge".into()) };
        for state in states {
            if !Arc::ptr_eq(&state.identity, &whole.identity) {
                state.identity.require(&whole.identity)?;
            }
            for (field, one, other) in [
                ("world size", whole.world_size as u64, state.world_size as u64),
                ("round", whole.round, state.round),
                ("batch within the round", whole.turn, state.turn),
            ] {
                if one != other {
                    return refuse(format!("the states are not of one moment: {field} {one} and {other}"));
                }
            }
            for (lane, entry) in state.lanes {
                if whole.lanes.insert(lane, entry.clone()).is_some_and(|before| before != entry) {
                    return refuse(format!("two states hold lane {lane} and differ"));
                }
            }
        }
        if let Some(lane) = (0..whole.identity.lanes).find(|lane| !whole.lanes.contains_key(lane)) {
            let rank = lane % whole.world_size.max(1);
            return refuse(format!(
                "lane {lane} is missing: the state of rank {rank} of {} is not among them",
                whole.world_size
            ));
        }
        whole.rank = None;
        Ok(whole)
    }
}
