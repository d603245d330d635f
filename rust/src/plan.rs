//! Which documents, in which order, on which lane: a pure function of row counts and settings.
//!
//! ```text
//! row groups   |---- 0 ----|---- 1 ----|-- 2 --|      row counts from the footers, clipped at the split's border
//! units        | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |      whole row groups, or ranges of one
//! lane l       the k-th unit is position l + k · lanes of the endless sequence of epochs (permuted with shuffle)
//! ```
//! Nothing is read here, and no table grows with the number of units: ten million row groups need one entry each.
//! The permutation is six Feistel rounds over SplitMix64, walked until it lands inside (cycle walking; Black and
//! Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).

use std::ops::Range;

use crate::config::{Deal, PlanConfig, Split};
use crate::error::{Error, Result};

/// Rows `start..end` of a row group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Index of the shard.
    pub shard: usize,
    /// Row group of the shard.
    pub row_group: usize,
    /// First row.
    pub start: u64,
    /// Behind the last row.
    pub end: u64,
}

/// Units of a lane whose documents are permuted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Ordinal of its first unit on the lane.
    pub first: u64,
    /// Behind the ordinal of its last unit.
    pub end: u64,
    /// Key of the permutation of its documents.
    pub key: u64,
}

/// The order of all documents.
#[derive(Clone, Debug)]
pub struct Plan {
    config: PlanConfig,
    groups: Vec<Unit>,
    /// Units up to and including each group; empty when units are whole row groups.
    unit_ends: Vec<u64>,
    unit_documents: u64,
    num_units: u64,
    num_documents: u64,
    /// Units a shuffle window.
    window_units: u64,
    /// `Deal::PerFile`: the units of each lane.
    dealt: Vec<Vec<u64>>,
}

impl Plan {
    /// The plan over shards with these row counts (`row_counts[shard][row_group]`).
    pub fn new(row_counts: &[Vec<u64>], config: &PlanConfig) -> Result<Self> {
        let mut groups = groups_of(row_counts, config.split)?;
        let num_groups = groups.len() as u64; // empty ones count when the size of units is chosen, and are no units
        groups.retain(|group| group.start < group.end);
        let num_documents: u64 = groups.iter().map(|group| group.end - group.start).sum();
        if num_documents == 0 {
            let rule = format!("no documents in {} shards", row_counts.len());
            return Err(Error::config("data", "empty", rule + "; add shards with rows, or check split="));
        }
        let largest = groups.iter().map(|group| group.end - group.start).max().unwrap_or(0);
        let unit_documents = unit_size(num_groups, largest, num_documents, config);
        let mut unit_ends = Vec::new();
        let mut num_units = 0;
        if unit_documents == 0 {
            num_units = groups.len() as u64;
        } else {
            unit_ends.reserve_exact(groups.len());
            for group in &groups {
                num_units += (group.end - group.start).div_ceil(unit_documents);
                unit_ends.push(num_units);
            }
        }
        let window_units =
            (config.shuffle_window as u128 * num_units as u128 / num_documents as u128).max(1) as u64;
        let config = config.clone();
        let mut plan = Self {
            config,
            groups,
            unit_ends,
            unit_documents,
            num_units,
            num_documents,
            window_units,
            dealt: Vec::new(),
        };
        if plan.config.deal == Deal::PerFile {
            plan.dealt = vec![Vec::new(); plan.config.lanes];
            for index in 0..num_units {
                let lane = plan.unit_at(index).row_group % plan.config.lanes;
                plan.dealt[lane].push(index);
            }
        }
        plan.refuse_empty_lanes()?;
        Ok(plan)
    }

    /// The same plan where its shards are those from `first_shard` on among all sources'.
    pub fn with_first_shard(mut self, first_shard: usize) -> Self {
        self.groups.iter_mut().for_each(|group| group.shard += first_shard);
        self
    }

    /// The lane's `ordinal`-th unit, `None` behind the last epoch.
    pub fn unit(&self, lane: usize, ordinal: u64) -> Option<Unit> {
        let (epoch, position) = self.place_of(lane, ordinal)?;
        let index = match self.config.deal {
            Deal::PerFile => self.dealt[lane][position as usize],
            Deal::Stream if self.config.shuffle => {
                permuted(position, self.num_units, key_of(&[self.config.seed, 1, epoch]))
            }
            Deal::Stream => position,
        };
        Some(self.unit_at(index))
    }

    /// Changes with every (epoch, shard, row group): documents of equal groups lie in one row group.
    pub fn group_of(&self, lane: usize, ordinal: u64) -> u64 {
        let epoch = self.place_of(lane, ordinal).map_or(0, |(epoch, _)| epoch);
        self.unit(lane, ordinal).map_or(0, |unit| key_of(&[epoch, unit.shard as u64, unit.row_group as u64]))
    }

    /// The shuffle window that holds the lane's `ordinal`-th unit, `None` behind the last epoch.
    pub fn window(&self, lane: usize, ordinal: u64) -> Option<Window> {
        let (epoch, _) = self.place_of(lane, ordinal)?;
        let (begin, end) = self.epoch_bounds(lane, epoch);
        let index = (ordinal - begin) / self.window_units;
        let first = begin + index * self.window_units;
        let key = key_of(&[self.config.seed, 2, epoch, lane as u64, index]);
        Some(Window { first, end: end.min(first + self.window_units), key })
    }

    /// Ordinals of the lane in the epoch of its `ordinal`-th unit, `None` behind the last epoch.
    pub fn epoch_of(&self, lane: usize, ordinal: u64) -> Option<Range<u64>> {
        let (epoch, _) = self.place_of(lane, ordinal)?;
        let (begin, end) = self.epoch_bounds(lane, epoch);
        Some(begin..end)
    }

    /// Number of units in an epoch, over all lanes.
    pub fn num_units(&self) -> u64 {
        self.num_units
    }

    /// Number of documents in an epoch, over all lanes.
    pub fn num_documents(&self) -> u64 {
        self.num_documents
    }

    /// Documents a unit as resolved; 0 means whole row groups.
    pub fn unit_documents(&self) -> u64 {
        self.unit_documents
    }

    /// The row groups of an epoch, as far as they are in the split.
    pub fn groups(&self) -> &[Unit] {
        &self.groups
    }

    /// The most documents that a shuffle window may have.
    pub fn most_documents_of_a_window(&self) -> u64 {
        let largest = self.groups.iter().map(|group| group.end - group.start).max().unwrap_or(0);
        let unit = if self.unit_documents == 0 { largest } else { self.unit_documents.min(largest) };
        self.window_units.saturating_mul(unit)
    }

    /// The settings it was made from.
    pub fn config(&self) -> &PlanConfig {
        &self.config
    }

    /// (epoch, position within the epoch's units) of a lane's ordinal.
    fn place_of(&self, lane: usize, ordinal: u64) -> Option<(u64, u64)> {
        let (number, per_epoch) = match self.config.deal {
            Deal::Stream => {
                (lane as u128 + ordinal as u128 * self.config.lanes as u128, self.num_units as u128)
            }
            Deal::PerFile => (ordinal as u128, self.dealt[lane].len() as u128),
        };
        let (epoch, position) = ((number / per_epoch) as u64, (number % per_epoch) as u64);
        match self.config.epochs {
            Some(epochs) if epoch >= epochs => None,
            _ => Some((epoch, position)),
        }
    }

    /// First ordinal of the lane in this epoch and in the next.
    fn epoch_bounds(&self, lane: usize, epoch: u64) -> (u64, u64) {
        let begin = |epoch: u64| match self.config.deal {
            Deal::PerFile => epoch * self.dealt[lane].len() as u64,
            Deal::Stream => {
                let number = epoch as u128 * self.num_units as u128;
                number.saturating_sub(lane as u128).div_ceil(self.config.lanes as u128) as u64
            }
        };
        (begin(epoch), begin(epoch + 1))
    }

    fn unit_at(&self, index: u64) -> Unit {
        if self.unit_documents == 0 {
            return self.groups[index as usize];
        }
        let at = self.unit_ends.partition_point(|&end| end <= index);
        let before = if at == 0 { 0 } else { self.unit_ends[at - 1] };
        let group = self.groups[at];
        let start = group.start + (index - before) * self.unit_documents;
        Unit { start, end: group.end.min(start + self.unit_documents), ..group }
    }

    fn refuse_empty_lanes(&self) -> Result<()> {
        let (lanes, fits) = match self.config.deal {
            Deal::Stream => {
                let units = self.num_units.saturating_mul(self.config.epochs.unwrap_or(u64::MAX));
                (self.config.lanes as u64, units)
            }
            Deal::PerFile => (
                self.config.lanes as u64,
                self.dealt.iter().take_while(|units| !units.is_empty()).count() as u64,
            ),
        };
        if lanes <= fits {
            return Ok(());
        }
        let rule = format!(
            "lane {fits} would get no data: there are {} units of {} in {} documents; use at most {fits} lanes \
             (and a world size that divides them), smaller units (unit_documents=), or more data",
            self.num_units,
            match self.unit_documents {
                0 => "one row group".into(),
                n => format!("{n} documents"),
            },
            self.num_documents
        );
        Err(Error::config("lanes", lanes, rule))
    }
}

/// The row groups of a split, those at its border clipped.
fn groups_of(row_counts: &[Vec<u64>], split: Split) -> Result<Vec<Unit>> {
    let last = row_counts.len().saturating_sub(1);
    let (shards, border) = match (split, row_counts) {
        (Split::All, _) => (0..row_counts.len(), None),
        (_, [only]) => {
            let rows: u64 = only.iter().sum();
            if rows < 2 {
                let rule =
                    format!("a single shard with {rows} documents cannot be split; it takes two at least");
                return Err(Error::config("split", split.name(), rule));
            }
            (0..1, Some(rows - (rows / 20).max(1)))
        }
        (Split::Train, _) => (0..last, None),
        (Split::Val, _) => (last..row_counts.len(), None),
    };
    let mut groups = Vec::new();
    for shard in shards {
        let mut before = 0;
        for (row_group, &rows) in row_counts[shard].iter().enumerate() {
            let (mut start, mut end) = (0, rows);
            match (border, split) {
                (Some(border), Split::Train) => end = rows.min(border.saturating_sub(before)),
                (Some(border), _) => start = rows.min(border.saturating_sub(before)),
                (None, _) => {}
            }
            before += rows;
            if start < end || rows == 0 {
                groups.push(Unit { shard, row_group, start, end });
            }
        }
    }
    Ok(groups)
}

/// Documents a unit, 0 for whole row groups.
fn unit_size(num_groups: u64, largest: u64, documents: u64, config: &PlanConfig) -> u64 {
    if let Some(size) = config.unit_documents {
        return size;
    }
    let lanes = config.lanes as u64;
    let mut size = 0;
    if num_groups < 32 * lanes {
        size = (documents / lanes).clamp(1, 16).max(documents / (32 * lanes));
    }
    if config.shuffle && (if size > 0 { size } else { largest }) > config.shuffle_window {
        size = config.shuffle_window;
    }
    size
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Where position `i` of `n` goes under `key`.
pub fn permuted(mut i: u64, n: u64, key: u64) -> u64 {
    let bits = 64 - n.saturating_sub(1).leading_zeros();
    let half = bits.div_ceil(2).max(1);
    let low = (1u64 << half) - 1;
    loop {
        let (mut left, mut right) = (i >> half, i & low);
        for round in 0..6 {
            (left, right) = (right, left ^ (mix(right ^ mix(key.wrapping_add(round))) & low));
        }
        i = (left << half) | right;
        if i < n {
            return i;
        }
    }
}

/// One key from several numbers.
pub fn key_of(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |key, &part| mix(key ^ part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutes_as_the_reference_does() {
        let key = key_of(&[7, 1, 0]);
        let places: Vec<u64> = (0..10).map(|i| permuted(i, 10, key)).collect();
        assert_eq!(places, [3, 6, 5, 8, 4, 1, 2, 0, 9, 7]);
        assert_eq!(key_of(&[7, 2, 0, 3, 1]), 7_990_455_976_845_580_648);
    }

    #[test]
    fn deals_every_unit_once_an_epoch() {
        let rows = vec![vec![10, 0, 7], vec![33]];
        for lanes in [1, 2, 3, 5] {
            for shuffle in [false, true] {
                let config = PlanConfig { lanes, shuffle, epochs: Some(2), ..PlanConfig::default() };
                let plan = Plan::new(&rows, &config).unwrap();
                let mut seen = std::collections::HashMap::new();
                for lane in 0..lanes {
                    for unit in (0..).map_while(|ordinal| plan.unit(lane, ordinal)) {
                        for row in unit.start..unit.end {
                            *seen.entry((unit.shard, unit.row_group, row)).or_insert(0) += 1;
                        }
                    }
                }
                assert_eq!(seen.len(), 50);
                assert!(seen.values().all(|&times| times == 2));
            }
        }
    }

    #[test]
    fn a_single_shard_is_split_by_documents() {
        let rows = vec![vec![30, 30]];
        let part = |split| {
            let config = PlanConfig { split, unit_documents: Some(0), ..PlanConfig::default() };
            let plan = Plan::new(&rows, &config).unwrap();
            (0..plan.num_units()).map(|k| plan.unit(0, k).unwrap()).collect::<Vec<_>>()
        };
        let train = part(Split::Train);
        assert_eq!(train[1], Unit { shard: 0, row_group: 1, start: 0, end: 27 });
        assert_eq!(part(Split::Val), [Unit { shard: 0, row_group: 1, start: 27, end: 30 }]);
        assert!(Plan::new(&[vec![1]], &PlanConfig { split: Split::Val, ..PlanConfig::default() }).is_err());
    }

    #[test]
    fn refuses_a_lane_without_data() {
        let config = PlanConfig { lanes: 8, epochs: Some(1), ..PlanConfig::default() };
        let message = Plan::new(&[vec![3]], &config).unwrap_err().to_string();
        assert!(message.contains("lane 3 would get no data"), "{message}");
        assert!(Plan::new(&[vec![3]], &PlanConfig { epochs: None, ..config }).is_ok());
    }
}
