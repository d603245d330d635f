//! Settings that are one of a few, by the names that users write and states hold.

use crate::error::{Error, Result};

/// The choice of that name; `choices` are at least two.
pub(crate) fn choose<T: Copy>(field: &'static str, name: &str, choices: &[(&str, T)]) -> Result<T> {
    if let Some((_, choice)) = choices.iter().find(|(known, _)| *known == name) {
        return Ok(*choice);
    }
    let names: Vec<String> = choices.iter().map(|(known, _)| format!("`{known}`")).collect();
    let (last, others) = names.split_last().expect("there are choices");
    Err(Error::config(field, format!("`{name}`"), format!("expected {} or {last}", others.join(", "))))
}

/// How documents become rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// One endless stream, BOS before each document.
    Concat,
    /// Rows that begin with BOS, filled with the largest buffered document that fits.
    BestFit(Overflow),
    /// One document a row.
    OnePerRow,
}

/// What `BestFit` does when no buffered document fits into the rest of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Cut the longest; its rest waits behind a new BOS. Every token is delivered.
    Carry,
    /// Cut the shortest and drop its rest (nanochat).
    Crop,
    /// Fill with padding.
    Pad,
}

impl Overflow {
    /// The name that users write.
    pub fn name(self) -> &'static str {
        match self {
            Self::Carry => "carry",
            Self::Crop => "crop",
            Self::Pad => "pad",
        }
    }
}

impl Packing {
    /// From the names that users write: `concat`, `best_fit`, `one_per_row`; `carry`, `crop`, `pad`.
    pub fn parse(packing: &str, overflow: &str) -> Result<Self> {
        let overflows = [Overflow::Carry, Overflow::Crop, Overflow::Pad].map(|it| (it.name(), it));
        let overflow = choose("overflow", overflow, &overflows)?;
        let packings = [
            ("concat", Self::Concat),
            ("best_fit", Self::BestFit(overflow)),
            ("one_per_row", Self::OnePerRow),
        ];
        choose("packing", packing, &packings)
    }

    /// The name that stands in a state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Concat => "concat",
            Self::BestFit(Overflow::Carry) => "best_fit/carry",
            Self::BestFit(Overflow::Crop) => "best_fit/crop",
            Self::BestFit(Overflow::Pad) => "best_fit/pad",
            Self::OnePerRow => "one_per_row",
        }
    }
}

/// How units are dealt to lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deal {
    /// The endless sequence of epochs is dealt round-robin.
    Stream,
    /// nanochat: row group `i` of every file goes to lane `i mod lanes`.
    PerFile,
}

impl Deal {
    /// `stream` or `per_file`.
    pub fn parse(name: &str) -> Result<Self> {
        choose("deal", name, &[Self::Stream, Self::PerFile].map(|it| (it.name(), it)))
    }

    /// The name that stands in a state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::PerFile => "per_file",
        }
    }
}

/// Which part of the data is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Every shard.
    All,
    /// All shards but the last; of a single shard, all but its last twentieth.
    Train,
    /// The last shard; of a single shard, its last twentieth.
    Val,
}

impl Split {
    /// `None`, `train` or `val`.
    pub fn parse(name: Option<&str>) -> Result<Self> {
        match name {
            None => Ok(Self::All),
            Some("train") => Ok(Self::Train),
            Some("val") => Ok(Self::Val),
            Some(other) => {
                Err(Error::config("split", format!("`{other}`"), "expected `train`, `val` or None"))
            }
        }
    }

    /// The name that stands in a state.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Train => "train",
            Self::Val => "val",
        }
    }
}

/// How a mixture goes on when a source has given all documents of its epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOut {
    /// Sources are endless.
    Repeat,
    /// The lane ends.
    Stop,
    /// The others share by their weights what is to come.
    Drop,
}

impl RunOut {
    /// `repeat`, `stop` or `drop`.
    pub fn parse(name: &str) -> Result<Self> {
        choose("run_out", name, &[Self::Repeat, Self::Stop, Self::Drop].map(|it| (it.name(), it)))
    }

    /// The name that stands in a state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Repeat => "repeat",
            Self::Stop => "stop",
            Self::Drop => "drop",
        }
    }
}

/// What becomes of a conversation that is longer than a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooLong {
    /// It is cut at the row's end.
    CutEnd,
    /// It is cut from the left, behind its BOS.
    CutLeft,
    /// It is left out.
    LeaveOut,
}

impl TooLong {
    /// `cut_end`, `cut_left` or `leave_out`.
    pub fn parse(name: &str) -> Result<Self> {
        let choices = [("cut_end", Self::CutEnd), ("cut_left", Self::CutLeft), ("leave_out", Self::LeaveOut)];
        choose("too_long", name, &choices)
    }
}

/// What becomes of data that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BadData {
    /// Leaves out the smallest part that is bad and lists it; else it is an error.
    pub quarantine: bool,
    /// Puts U+FFFD where a document is not UTF-8; else such a document is bad data.
    pub replace_invalid_utf8: bool,
}

impl BadData {
    /// `raise` or `quarantine`; `refuse` or `replace`.
    pub fn parse(on_bad_data: &str, invalid_utf8: &str) -> Result<Self> {
        let quarantine = choose("on_bad_data", on_bad_data, &[("raise", false), ("quarantine", true)])?;
        let replace_invalid_utf8 =
            choose("invalid_utf8", invalid_utf8, &[("refuse", false), ("replace", true)])?;
        Ok(Self { quarantine, replace_invalid_utf8 })
    }
}
