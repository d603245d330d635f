//! What a loader is asked for, checked once, at construction.
//!
//! Every refusal names the field, its value and the rule. Paths, devices and Python objects are not here.

use crate::error::{Error, Result};

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

impl Packing {
    /// From the names that users write: `concat`, `best_fit`, `one_per_row`; `carry`, `crop`, `pad`.
    pub fn parse(packing: &str, overflow: &str) -> Result<Self> {
        let overflow = match overflow {
            "carry" => Overflow::Carry,
            "crop" => Overflow::Crop,
            "pad" => Overflow::Pad,
            other => {
                return Err(Error::config(
                    "overflow",
                    format!("`{other}`"),
                    "expected `carry`, `crop` or `pad`",
                ));
            }
        };
        match packing {
            "concat" => Ok(Self::Concat),
            "best_fit" => Ok(Self::BestFit(overflow)),
            "one_per_row" => Ok(Self::OnePerRow),
            other => Err(Error::config(
                "packing",
                format!("`{other}`"),
                "expected `concat`, `best_fit` or `one_per_row`",
            )),
        }
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
        match name {
            "stream" => Ok(Self::Stream),
            "per_file" => Ok(Self::PerFile),
            other => Err(Error::config("deal", format!("`{other}`"), "expected `stream` or `per_file`")),
        }
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
        match name {
            "repeat" => Ok(Self::Repeat),
            "stop" => Ok(Self::Stop),
            "drop" => Ok(Self::Drop),
            other => {
                Err(Error::config("run_out", format!("`{other}`"), "expected `repeat`, `stop` or `drop`"))
            }
        }
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

/// Several sources that are read in shares of tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct MixtureConfig {
    /// Of each source, above 0 and finite.
    pub weights: Vec<f64>,
    /// What happens at the end of a source.
    pub run_out: RunOut,
}

/// A document by what a user knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DocumentName {
    /// Its file's name without the folder.
    pub file: String,
    /// Row group of the file.
    pub row_group: usize,
    /// Row of the row group.
    pub row: u64,
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
        let quarantine = match on_bad_data {
            "raise" => false,
            "quarantine" => true,
            other => {
                let rule = "expected `raise` or `quarantine`";
                return Err(Error::config("on_bad_data", format!("`{other}`"), rule));
            }
        };
        let replace_invalid_utf8 = match invalid_utf8 {
            "refuse" => false,
            "replace" => true,
            other => {
                let rule = "expected `refuse` or `replace`";
                return Err(Error::config("invalid_utf8", format!("`{other}`"), rule));
            }
        };
        Ok(Self { quarantine, replace_invalid_utf8 })
    }
}

/// What fixes the order of documents: part of a state's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanConfig {
    /// Which part of the data.
    pub split: Split,
    /// Streams that are packed apart; a world size that divides it sees the same rounds.
    pub lanes: usize,
    /// Documents a unit; `None`: chosen from the data; 0: whole row groups.
    pub unit_documents: Option<u64>,
    /// How units are dealt to lanes.
    pub deal: Deal,
    /// Whether units and documents are permuted.
    pub shuffle: bool,
    /// Seed of the permutations.
    pub seed: u64,
    /// Documents that are permuted together.
    pub shuffle_window: u64,
    /// Passes over the data; `None`: for ever.
    pub epochs: Option<u64>,
    /// Whether finite epochs end with the shortest lane; else with the longest, the others giving padding.
    pub drop_last: bool,
}

impl Default for PlanConfig {
    fn default() -> Self {
        Self {
            split: Split::All,
            lanes: 1,
            unit_documents: None,
            deal: Deal::Stream,
            shuffle: false,
            seed: 0,
            shuffle_window: 4096,
            epochs: None,
            drop_last: false,
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
        match name {
            "cut_end" => Ok(Self::CutEnd),
            "cut_left" => Ok(Self::CutLeft),
            "leave_out" => Ok(Self::LeaveOut),
            other => {
                let rule = "expected `cut_end`, `cut_left` or `leave_out`";
                Err(Error::config("too_long", format!("`{other}`"), rule))
            }
        }
    }
}

/// What a loader of conversations is asked for besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatConfig {
    /// What becomes of long ones.
    pub too_long: TooLong,
    /// How they are read and rendered, as a state holds it.
    pub identity: String,
}

/// Everything a loader is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct LoaderConfig {
    /// The order of documents.
    pub plan: PlanConfig,
    /// Rows a batch, B.
    pub batch_size: usize,
    /// Inputs a row, T; a row holds T + 1 tokens.
    pub sequence_length: usize,
    /// Documents → rows.
    pub packing: Packing,
    /// The text column.
    pub text_column: String,
    /// Data that cannot be read.
    pub bad_data: BadData,
    /// Documents that are left out.
    pub exclude: Vec<DocumentName>,
    /// Whether batches come with what lies where in them and where it came from.
    pub return_documents: bool,
    /// Shares of the sources; `None` where there is one data set.
    pub mixture: Option<MixtureConfig>,
    /// Token before each document.
    pub bos_id: u32,
    /// Token of padding; its targets are never learned.
    pub pad_id: u32,
    /// This process among all.
    pub rank: usize,
    /// Number of processes.
    pub world_size: usize,
    /// Native threads: a budget for reading, tokenizing and packing together.
    pub num_threads: usize,
    /// Batches that the ring holds.
    pub num_slots: usize,
    /// Bytes that the loader may hold at any moment (see `account` and `floor`). Has no meaning for token files.
    pub memory_limit_bytes: usize,
    /// For conversations.
    pub chat: Option<ChatConfig>,
}

impl LoaderConfig {
    /// The lanes used when none are asked for: 8 where the world size divides 8, else the world size.
    pub fn default_lanes(world_size: usize) -> usize {
        if 8usize.is_multiple_of(world_size) { 8 } else { world_size }
    }

    /// Lanes of this rank: r, r + W, …
    pub fn own_lanes(&self) -> Vec<usize> {
        (self.rank..self.plan.lanes).step_by(self.world_size).collect()
    }

    /// int32 values in a slot: B × (T + 1).
    pub fn slot_len(&self) -> usize {
        self.batch_size * (self.sequence_length + 1)
    }

    /// Checks every field that does not depend on the data.
    pub fn validate(&self) -> Result<()> {
        let at_least = |field: &'static str, value: usize, least: usize| match value < least {
            true => Err(Error::config(field, value, format!("must be at least {least}"))),
            false => Ok(()),
        };
        at_least("batch_size", self.batch_size, 1)?;
        at_least("sequence_length", self.sequence_length, 1)?;
        at_least("num_threads", self.num_threads, 1)?;
        at_least("num_slots", self.num_slots, 2)?;
        at_least("world_size", self.world_size, 1)?;
        at_least("lanes", self.plan.lanes, 1)?;
        // Far beyond any use, and small enough that what is made for each of them fits into memory.
        let at_most = |field: &'static str, value: usize, most: usize| match value > most {
            true => Err(Error::config(field, value, format!("must be at most {most}"))),
            false => Ok(()),
        };
        at_most("num_threads", self.num_threads, 1024)?;
        at_most("num_slots", self.num_slots, 65_536)?;
        at_most("lanes", self.plan.lanes, 65_536)?;
        let slot = (self.sequence_length as u128 + 1) * self.batch_size as u128 * 4;
        if slot.saturating_mul(self.num_slots as u128) > 1 << 40 {
            let rule = format!(
                "with batch_size = {} a slot takes {slot} bytes; the ring must stay under 1 TiB",
                self.batch_size
            );
            return Err(Error::config("sequence_length", self.sequence_length, rule));
        }
        if self.rank >= self.world_size {
            return Err(Error::config(
                "rank",
                self.rank,
                format!("must be below world_size = {}", self.world_size),
            ));
        }
        if !self.plan.lanes.is_multiple_of(self.world_size) {
            let up = self.plan.lanes.div_ceil(self.world_size) * self.world_size;
            let rule = format!(
                "does not divide lanes = {}; use a world size that divides it (one of {}), or lanes = {up}",
                self.plan.lanes,
                divisors(self.plan.lanes)
            );
            return Err(Error::config("world_size", self.world_size, rule));
        }
        if let (Some(_), Packing::BestFit(overflow @ (Overflow::Carry | Overflow::Crop))) =
            (&self.chat, self.packing)
        {
            let rule = "conversations are not cut and carried on or cropped: use `pad`, or packing `concat` or \
                        `one_per_row`";
            let name = if overflow == Overflow::Carry { "carry" } else { "crop" };
            return Err(Error::config("overflow", format!("`{name}`"), rule));
        }
        if self.plan.epochs == Some(0) {
            return Err(Error::config("epochs", 0, "must be at least 1, or None for ever"));
        }
        if self.plan.shuffle && self.plan.shuffle_window == 0 {
            return Err(Error::config("shuffle_window", 0, "must be at least 1"));
        }
        if self.chat.is_some() && self.bad_data.replace_invalid_utf8 {
            let rule = "conversations are not repaired; use `refuse`, which counts them as bad data";
            return Err(Error::config("invalid_utf8", "`replace`", rule));
        }
        if let Some(mixture) = &self.mixture {
            self.validate_mixture(mixture)?;
        }
        for (field, id) in [("bos_token", self.bos_id), ("pad_id", self.pad_id)] {
            if id >= 1 << 31 {
                return Err(Error::config(field, id, "token ids stay below 2^31"));
            }
        }
        Ok(())
    }
}

impl LoaderConfig {
    fn validate_mixture(&self, mixture: &MixtureConfig) -> Result<()> {
        if let Some(weight) = mixture.weights.iter().find(|weight| !(weight.is_finite() && **weight > 0.0)) {
            return Err(Error::config("weight", weight, "must be above 0 and finite"));
        }
        if self.packing == Packing::BestFit(Overflow::Crop) {
            let rule =
                "mixtures go with `carry` and `pad`: the tokens that `crop` drops would shift the shares";
            return Err(Error::config("overflow", "`crop`", rule));
        }
        match (mixture.run_out, self.plan.epochs) {
            (RunOut::Repeat, Some(epochs)) => {
                let rule = "a mixture whose sources repeat has no end; use run_out=\"stop\" or \"drop\", or epochs=None";
                Err(Error::config("epochs", epochs, rule))
            }
            (RunOut::Stop | RunOut::Drop, None) => {
                let rule = "a mixture that ends with its sources needs the number of their epochs";
                Err(Error::config("epochs", "None", rule))
            }
            _ => Ok(()),
        }
    }
}

fn divisors(n: usize) -> String {
    (1..=n).filter(|d| n.is_multiple_of(*d)).map(|d| d.to_string()).collect::<Vec<_>>().join(", ")
}
