//! What a loader is asked for, checked once, at construction.
//!
//! Every refusal names the field, its value and the rule. Paths, devices and Python objects are not here.

mod choices;

pub(crate) use choices::choose;
pub use choices::{BadData, Deal, Overflow, Packing, RunOut, Split, TooLong};

use crate::error::{Error, Result};

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
            return Err(Error::config("overflow", format!("`{}`", overflow.name()), rule));
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
