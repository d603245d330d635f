//! Windows of token files: where each is, in which order they come, and rows filled with them.
//!
//! ```text
//! order     stride T   window k of a file is tokens[kT .. kT + T + 1]: inputs do not overlap, each token is a target once
//!           stride 1   a window at every offset, as a map-style data set over np.memmap has them
//! plan      windows are dealt to lanes and permuted as units of a text loader are: no table, whatever their number
//! ```
//! No window reaches from one file into the next; the tokens behind a file's last whole window belong to none.

use std::sync::Arc;

use crate::config::{PlanConfig, Split, choose};
use crate::error::{Error, Result};
use crate::packing::NOT_LEARNED;
use crate::plan::Plan;
use crate::state::ShardIdentity;
use crate::token_file::TokenFiles;

/// In which order windows come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    /// From front to back.
    Off,
    /// Windows that do not overlap, permuted anew in each epoch.
    Window,
    /// Windows at every offset, permuted anew in each epoch.
    Random,
}

impl Shuffle {
    /// From the names that users write.
    pub fn parse(name: &str) -> Result<Self> {
        choose("shuffle", name, &[Self::Off, Self::Window, Self::Random].map(|it| (it.name(), it)))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "none",
            Self::Window => "window",
            Self::Random => "random",
        }
    }
}

/// The windows of a split of token files, in order.
#[derive(Debug)]
pub(crate) struct Windows {
    files: TokenFiles,
    plan: Arc<Plan>,
    /// First token of each file that belongs to the split.
    begins: Vec<u64>,
    stride: u64,
    sequence_length: u64,
    /// Ids stay below it.
    vocab_size: u32,
}

impl Windows {
    /// Of `config`, `shuffle` and `unit_documents` are as `shuffle` needs them, whatever they say.
    pub(crate) fn new(
        files: TokenFiles,
        sequence_length: usize,
        shuffle: Shuffle,
        config: &PlanConfig,
        vocab_size: u32,
    ) -> Result<Self> {
        let sequence_length = sequence_length as u64;
        let stride = if shuffle == Shuffle::Random { 1 } else { sequence_length };
        let parts = parts(&files, config.split);
        let counts: Vec<u64> = parts
            .iter()
            .map(|(begin, end)| match (end - begin).checked_sub(sequence_length + 1) {
                Some(room) => room / stride + 1,
                None => 0,
            })
            .collect();
        require(&files, &counts, sequence_length, config)?;
        let plan_config = PlanConfig {
            split: Split::All,
            unit_documents: Some(1),
            shuffle: shuffle != Shuffle::Off,
            ..config.clone()
        };
        let row_counts: Vec<Vec<u64>> = counts.iter().map(|&count| vec![count]).collect();
        Ok(Self {
            plan: Arc::new(Plan::new(&row_counts, &plan_config)?),
            begins: parts.into_iter().map(|(begin, _)| begin).collect(),
            files,
            stride,
            sequence_length,
            vocab_size,
        })
    }

    /// Windows of a lane in all its epochs; `None`: it never ends.
    pub(crate) fn of_lane(&self, lane: usize) -> Option<u64> {
        let config = self.plan.config();
        let all = self.plan.num_units().saturating_mul(config.epochs?);
        Some(all.saturating_sub(lane as u64).div_ceil(config.lanes as u64))
    }

    /// File and first token of a lane's `ordinal`-th window; `None` behind the last epoch.
    pub(crate) fn place(&self, lane: usize, ordinal: u64) -> Option<(usize, u64)> {
        let unit = self.plan.unit(lane, ordinal)?;
        Some((unit.shard, self.begins[unit.shard] + unit.start * self.stride))
    }

    /// Fills `out`, rows of T + 1 tokens, with a lane's windows from `ordinal` on, and what is behind the last one with
    /// padding. Returns the rows that are windows. `bytes` is memory to read into.
    pub(crate) fn fill(
        &self,
        lane: usize,
        ordinal: u64,
        pad_id: u32,
        out: &mut [i32],
        bytes: &mut Vec<u8>,
    ) -> Result<usize> {
        let mut num_windows = 0;
        for (row, ordinal) in out.chunks_exact_mut(self.sequence_length as usize + 1).zip(ordinal..) {
            match self.place(lane, ordinal) {
                Some((file, start)) => {
                    self.files.read(file, start, row, self.vocab_size, bytes)?;
                    num_windows += 1;
                }
                None => row.fill((pad_id | NOT_LEARNED) as i32),
            }
        }
        Ok(num_windows)
    }

    /// The files as a state names them.
    pub(crate) fn shard_identities(&self) -> Result<Vec<ShardIdentity>> {
        let identity = |file: usize| {
            let name = self.files.path(file).file_name().unwrap_or_default();
            Ok(ShardIdentity {
                name: name.to_string_lossy().into_owned(),
                size_bytes: self.files.size_bytes(file),
                num_rows: self.files.layout(file).num_tokens,
                num_row_groups: 0,
                footer: self.files.fingerprint(file)?,
            })
        };
        (0..self.files.len()).map(identity).collect()
    }

    /// Its units are the windows.
    pub(crate) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }
}

/// The tokens of each file that belong to a split: all files but the last, or the last; of a single file all but its
/// last twentieth, or that.
fn parts(files: &TokenFiles, split: Split) -> Vec<(u64, u64)> {
    let last = files.len().saturating_sub(1);
    let part = |file: usize| {
        let all = files.layout(file).num_tokens;
        let border = if files.len() == 1 { all - all / 20 } else { all * u64::from(file != last) };
        match split {
            Split::All => (0, all),
            Split::Train => (0, border),
            Split::Val => (border, all),
        }
    };
    (0..files.len()).map(part).collect()
}

fn require(files: &TokenFiles, counts: &[u64], sequence_length: u64, config: &PlanConfig) -> Result<()> {
    let num_windows: u64 = counts.iter().sum();
    let num_tokens: u64 = (0..files.len()).map(|file| files.layout(file).num_tokens).sum();
    if num_windows == 0 {
        let rule = format!(
            "no window of {} tokens in the {} files of split `{}` ({num_tokens} tokens in all files); use a shorter \
             sequence_length or more data",
            sequence_length + 1,
            files.len(),
            config.split.name(),
        );
        return Err(Error::config("sequence_length", sequence_length, rule));
    }
    let dealt = num_windows.saturating_mul(config.epochs.unwrap_or(u64::MAX));
    if dealt < config.lanes as u64 {
        let rule = format!(
            "lane {dealt} would get no data: there are {num_windows} windows of {} tokens; use fewer lanes (and a \
             world size that divides them), a shorter sequence_length, or more data",
            sequence_length + 1
        );
        return Err(Error::config("lanes", config.lanes, rule));
    }
    Ok(())
}
