//! How a loader's memory limit is divided, and the least limit with which it can be made.
//!
//! ```text
//! limit   [ring][threads: caches, scratch][asked of servers] | lanes: a page, a step, what packers hold, windows | the rest
//!         set aside when threads start                       | at least so much, by what footers tell            |
//! ```
//! Footers tell how many rows and bytes a row group has, not how large its pages and its largest document are: those
//! are taken to be usual. Where they are not, the step that meets them is refused with the number that would do.

use crate::config::{LoaderConfig, Overflow, Packing};
use crate::error::{Error, Result};
use crate::feed::STEP_BYTES;
use crate::pipeline::STEP_MEMORY;
use crate::plan::Plan;
use crate::source::{BLOCK_BYTES, RowGroup, Shard};
use crate::tokenizer::DEFAULT_CACHE_BYTES;

/// An encoder's buffers beside its caches, and a decompressor's tables.
const SCRATCH_BYTES: usize = 1 << 20;

/// How often the caches' default is halved at most: to 1.5 MiB, with which encoding is some three times slower.
const MOST_HALVINGS: u32 = 5;

/// Bytes that are asked of servers ahead at most, beside the least: three requests for each of 20 readers, which is what
/// eight lanes have under way. More only holds memory.
const MOST_AHEAD_BYTES: usize = 128 << 20;

/// Rows of a page as writers make them, unless those take less than a page of usual size.
const PAGE_ROWS: u64 = 1024;

/// A page, or a dictionary, of usual size.
const PAGE_BYTES: u64 = 1 << 20;

/// A page of long documents: some writers end it at once, some at its 1,024th row.
const MOST_PAGE_BYTES: u64 = 8 << 20;

/// What the parts of a limit are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Floor {
    /// The ring and what goes with its slots.
    slots: usize,
    num_threads: usize,
    /// What lanes need at least.
    lanes: usize,
    /// What is read ahead of servers at least; 0: all shards are files.
    ahead: usize,
}

impl Floor {
    /// The parts for a loader of `plans`, whose shards are `shards`.
    pub(crate) fn new(config: &LoaderConfig, plans: &[Plan], shards: &[Shard]) -> Self {
        let slot = config.slot_len().saturating_mul(size_of::<i32>());
        // Spans of documents take as much as their tokens where those are 18 on average.
        let has_spans = config.return_documents || config.mixture.is_some();
        let num_lanes = config.own_lanes().len();
        let aside = if config.plan.epochs.is_some() { num_lanes } else { 0 };
        let slots = slot.saturating_mul(config.num_slots * (1 + usize::from(has_spans)) + aside);
        let of_source = |plan: &Plan| lane_bytes(config, plan, shards);
        let lane = plans.iter().map(of_source).fold(0, usize::saturating_add);
        let is_remote = shards.iter().any(Shard::is_remote);
        let ahead = if is_remote { BLOCK_BYTES as usize * num_lanes } else { 0 };
        Self { slots, num_threads: config.num_threads, lanes: lane.saturating_mul(num_lanes), ahead }
    }

    /// The least limit.
    pub(crate) fn least_bytes(&self) -> usize {
        let reserved = self.beside_ahead(DEFAULT_CACHE_BYTES >> MOST_HALVINGS);
        reserved.saturating_add(self.lanes).saturating_add(self.ahead)
    }

    /// What is set aside when the threads start.
    pub(crate) fn reserved_bytes(&self, limit: usize) -> usize {
        self.beside_ahead(self.cache_bytes(limit)).saturating_add(self.ahead_bytes(limit))
    }

    /// The ring, and threads with caches of this size.
    fn beside_ahead(&self, cache_bytes: usize) -> usize {
        self.slots.saturating_add(self.num_threads.saturating_mul(cache_bytes + SCRATCH_BYTES))
    }

    /// What of it is for what is asked of servers before it is needed: an eighth of what the least limit leaves.
    pub(crate) fn ahead_bytes(&self, limit: usize) -> usize {
        match self.ahead {
            0 => 0,
            least => least + (limit.saturating_sub(self.least_bytes()) / 8).min(MOST_AHEAD_BYTES),
        }
    }

    /// What the caches of each encoder get of `limit`: with those of all threads half of what lanes do not need, in steps
    /// of two, so that loaders of about one limit can use each other's encoders.
    pub(crate) fn cache_bytes(&self, limit: usize) -> usize {
        let others = self.beside_ahead(0).saturating_add(self.lanes).saturating_add(self.ahead_bytes(limit));
        let room = limit.saturating_sub(others) / 2;
        let sizes = (0..=MOST_HALVINGS).map(|halvings| DEFAULT_CACHE_BYTES >> halvings);
        let mut fitting = sizes.filter(|&size| self.num_threads.saturating_mul(size) <= room);
        fitting.next().unwrap_or(DEFAULT_CACHE_BYTES >> MOST_HALVINGS)
    }

    /// What is set aside of the least limit that leaves `bytes` for all else.
    pub(crate) fn reserved_beside(&self, bytes: usize) -> usize {
        let reserved = |cache_bytes: usize| {
            let rest = bytes.saturating_add(self.beside_ahead(cache_bytes));
            // A seventh of the rest is an eighth of all.
            let ahead = if self.ahead == 0 { 0 } else { self.ahead + (rest / 7 + 1).min(MOST_AHEAD_BYTES) };
            rest.saturating_add(ahead) - bytes
        };
        let mut sizes = (0..=MOST_HALVINGS).rev().map(|halvings| DEFAULT_CACHE_BYTES >> halvings);
        let leaves = |size: &usize| self.cache_bytes(bytes.saturating_add(reserved(*size))) <= *size;
        reserved(sizes.find(leaves).unwrap_or(DEFAULT_CACHE_BYTES))
    }

    /// Refuses a limit that is too small.
    pub(crate) fn require(&self, limit: usize) -> Result<()> {
        let least = self.least_bytes();
        if limit >= least {
            return Ok(());
        }
        let ahead = match self.ahead {
            0 => String::new(),
            ahead => format!("{ahead} for what is asked of servers, "),
        };
        let rule = format!(
            "must be at least {least}: {} for the ring, {} for {} threads, {ahead}and {} for the pages and documents that \
             lanes hold, by what the footers tell",
            self.slots,
            least.saturating_sub(self.slots).saturating_sub(self.lanes).saturating_sub(self.ahead),
            self.num_threads,
            self.lanes
        );
        Err(Error::config("memory_limit_bytes", limit, rule))
    }
}

/// What a lane needs at least of one source.
fn lane_bytes(config: &LoaderConfig, plan: &Plan, shards: &[Shard]) -> usize {
    let groups = || plan.groups().iter().map(|unit| shards[unit.shard].row_groups()[unit.row_group]);
    let (rows, bytes) = groups().fold((0, 0_u64), |(rows, bytes), group| {
        (rows + group.num_rows, bytes.saturating_add(group.num_bytes))
    });
    let mean = usize::try_from(bytes / rows.max(1)).unwrap_or(usize::MAX);
    let page = usize::try_from(groups().map(page_bytes).max().unwrap_or(0)).unwrap_or(usize::MAX);
    // Documents in the packer, and others that lie in the same batches of tokens.
    let (held, beside) = match config.packing {
        Packing::Concat | Packing::OnePerRow => (2, 0),
        Packing::BestFit(Overflow::Carry) => (256, 512),
        Packing::BestFit(Overflow::Pad) => (100, 512),
        Packing::BestFit(Overflow::Crop) => (1128, 1000),
    };
    let mut documents = mean.saturating_mul(held).saturating_add(mean.min(STEP_BYTES).saturating_mul(beside));
    if config.plan.shuffle {
        let window = usize::try_from(plan.most_documents_of_a_window().min(rows)).unwrap_or(usize::MAX);
        documents = documents.saturating_add(mean.saturating_mul(window));
    }
    // Of few documents a packer holds several epochs: more than two are seen when it comes to it.
    documents = documents.min(usize::try_from(bytes.saturating_mul(2)).unwrap_or(usize::MAX));
    // Tokens of 4 bytes are as large as the text that they stand for, in English; vectors have some room to spare.
    let tokens = documents.saturating_add(documents / 2);
    page.saturating_add(STEP_MEMORY).saturating_add(tokens)
}

/// A page of usual size, stored and decompressed, with a dictionary.
fn page_bytes(group: RowGroup) -> u64 {
    let mean = group.num_bytes / group.num_rows.max(1);
    let page = mean.saturating_mul(PAGE_ROWS).clamp(PAGE_BYTES, MOST_PAGE_BYTES).min(group.num_bytes);
    let stored = (page as u128 * group.num_compressed_bytes as u128 / group.num_bytes.max(1) as u128) as u64;
    page.saturating_add(stored).saturating_add(PAGE_BYTES.min(group.num_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Floor = Floor { slots: 1 << 20, num_threads: 4, lanes: 20 << 20, ahead: 0 };
    const AFAR: Floor = Floor { ahead: 4 << 20, ..HERE };

    #[test]
    fn caches_get_what_lanes_do_not_need() {
        for floor in [HERE, AFAR] {
            let least = floor.least_bytes();
            assert!(floor.require(least - 1).is_err());
            assert!(floor.require(least).is_ok());
            assert_eq!(floor.cache_bytes(least), DEFAULT_CACHE_BYTES >> MOST_HALVINGS);
            assert_eq!(floor.cache_bytes(1 << 30), DEFAULT_CACHE_BYTES);
            for limit in (least..1 << 30).step_by(1 << 20) {
                assert!(floor.reserved_bytes(limit) + floor.lanes <= limit);
            }
        }
    }

    #[test]
    fn what_is_asked_ahead_grows_with_the_limit() {
        let least = AFAR.least_bytes();
        assert_eq!(AFAR.ahead_bytes(least), 4 << 20);
        assert_eq!(AFAR.ahead_bytes(least + (80 << 20)), 14 << 20);
        assert_eq!(AFAR.ahead_bytes(4 << 30), 132 << 20);
        assert_eq!(HERE.ahead_bytes(4 << 30), 0);
    }

    #[test]
    fn a_limit_that_is_said_to_do_leaves_what_is_needed() {
        for floor in [HERE, AFAR] {
            for bytes in (0..2 << 30).step_by(5 << 20) {
                let limit = bytes + floor.reserved_beside(bytes);
                assert!(limit - floor.reserved_bytes(limit) >= bytes);
            }
        }
    }

    #[test]
    fn sizes_beyond_what_can_be_counted_are_refused() {
        let floor = Floor { slots: usize::MAX, num_threads: 4, lanes: usize::MAX, ahead: 0 };
        assert!(floor.require(usize::MAX - 1).is_err());
    }
}
