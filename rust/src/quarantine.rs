//! Rows that are left out because their bytes are bad: which, and why.
//!
//! What is left out is decided from the bytes alone, so every rank, run and resume decides alike. A lane notes a row
//! when it passes the row's place in its order, so that a list belongs to a batch and not to what was read ahead.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Consecutive rows of one row group, and what is wrong with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Index of the shard.
    pub shard: usize,
    /// Row group of the shard.
    pub row_group: usize,
    /// First row.
    pub start: u64,
    /// Behind the last row.
    pub end: u64,
    /// What is wrong with the bytes.
    pub reason: String,
}

/// A file that is left out whole: its footer cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadFile {
    /// File name without its folder.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Shard, row group, first row, row behind the last.
type Place = (usize, usize, u64, u64);

/// A lane's list, each part once however often an epoch passes it. Cheap to clone: it travels with every batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quarantine(Arc<BTreeMap<Place, String>>);

impl Quarantine {
    /// Notes rows that are left out.
    pub fn add(&mut self, quarantined: &Quarantined) {
        let Quarantined { shard, row_group, start, end, reason } = quarantined;
        let place = (*shard, *row_group, *start, *end);
        if !self.0.contains_key(&place) {
            Arc::make_mut(&mut self.0).insert(place, reason.clone());
        }
    }

    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of it, in the order of shards and rows.
    pub fn iter(&self) -> impl Iterator<Item = Quarantined> {
        self.0.iter().map(|(&(shard, row_group, start, end), reason)| {
            let reason = reason.clone();
            Quarantined { shard, row_group, start, end, reason }
        })
    }

    /// The lists of several lanes as one; a page that was dealt to several of them is one part again.
    pub fn together<'a>(lists: impl IntoIterator<Item = &'a Self>) -> Vec<Quarantined> {
        let mut all = Self::default();
        lists.into_iter().flat_map(Self::iter).for_each(|quarantined| all.add(&quarantined));
        let mut parts: Vec<Quarantined> = Vec::new();
        for next in all.iter() {
            match parts.last_mut() {
                Some(last)
                    if (last.shard, last.row_group, last.end) == (next.shard, next.row_group, next.start)
                        && last.reason == next.reason =>
                {
                    last.end = next.end;
                }
                _ => parts.push(next),
            }
        }
        parts
    }
}

impl FromIterator<Quarantined> for Quarantine {
    fn from_iter<I: IntoIterator<Item = Quarantined>>(parts: I) -> Self {
        let mut list = Self::default();
        parts.into_iter().for_each(|quarantined| list.add(&quarantined));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(shard: usize, start: u64, end: u64, reason: &str) -> Quarantined {
        Quarantined { shard, row_group: 0, start, end, reason: reason.into() }
    }

    #[test]
    fn each_part_is_listed_once_and_parts_of_a_page_are_joined() {
        let one: Quarantine =
            [part(0, 4, 6, "page"), part(0, 4, 6, "page"), part(1, 0, 1, "byte 3")].into_iter().collect();
        let other: Quarantine = [part(0, 6, 9, "page"), part(0, 9, 10, "byte 1")].into_iter().collect();
        assert_eq!(one.iter().count(), 2);
        assert_eq!(
            Quarantine::together([&one, &other]),
            [part(0, 4, 9, "page"), part(0, 9, 10, "byte 1"), part(1, 0, 1, "byte 3")]
        );
    }
}
