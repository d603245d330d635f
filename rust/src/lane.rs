//! One lane's packing: from its inbox into a slot, and the entry that goes with the slot.
//!
//! A `LanePacker` is in the hands of one thread at a time. It never waits: it packs until its slot is full or its
//! inbox is empty, and goes on from there the next time.

use crate::admission::PassedOver;
use crate::error::Result;
use crate::packing::{Cursor, NOT_LEARNED, Packer, Progress, Rows, Span};
use crate::ring::SlotWriter;
use crate::sources::Inboxes;
use crate::state::{Address, LaneEntry, Ledger};

/// What travels with a slot.
#[derive(Clone, Debug)]
pub struct SlotHeader {
    /// The lane it is of.
    pub lane: usize,
    /// Columns in use: T + 1, or less where rows end early in the whole batch (`one_per_row`).
    pub width: usize,
    /// Targets that are learned.
    pub num_targets: usize,
    /// Whether any token carries the not-learned bit.
    pub masked: bool,
    /// What the documents contribute to it, where that is asked for.
    pub spans: Vec<Span>,
    /// Where the lane stands behind this batch.
    pub entry: LaneEntry,
}

/// What a header says of its batch, without where the lane stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    /// See `SlotHeader`.
    pub lane: usize,
    /// See `SlotHeader`.
    pub width: usize,
    /// See `SlotHeader`.
    pub num_targets: usize,
    /// See `SlotHeader`.
    pub masked: bool,
}

impl SlotHeader {
    /// All of it but the entry.
    pub fn shape(&self) -> BatchShape {
        let Self { lane, width, num_targets, masked, .. } = *self;
        BatchShape { lane, width, num_targets, masked }
    }
}

/// Where a lane's next batch is written.
#[derive(Debug)]
enum Target {
    Slot(SlotWriter),
    /// Packed aside to find out whether there is another batch; copied once a slot is free.
    Aside(Vec<i32>),
}

/// What became of the batch.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Its slot is committed.
    Delivered(Box<SlotHeader>),
    /// It is complete and waits for a slot.
    Aside,
    /// More documents are needed.
    Pending,
    /// The lane has ended.
    Dry,
}

/// The packing side of a lane.
pub(crate) struct LanePacker {
    lane: usize,
    row_length: usize,
    slot_len: usize,
    pad_id: u32,
    inboxes: Inboxes,
    packer: Box<dyn Packer>,
    /// The state to take up before the first batch.
    restoring: Option<LaneEntry>,
    target: Option<Target>,
    cursor: Cursor,
    width: usize,
    /// What the packer does not count: padding of batches behind the lane's end, documents passed over.
    beside: Ledger,
    /// Documents passed over that nobody was told of yet.
    passed_over: Vec<(Address, PassedOver)>,
    /// Not-learned tokens in the ledger when the last batch was delivered.
    not_learned: u64,
    /// What the documents contribute to the batch at hand, where that is asked for …
    spans: Option<Vec<Span>>,
    /// … whether they go with the batch …
    returns_spans: bool,
    /// … and the learned targets of each source so far.
    trained: Vec<u64>,
}

impl LanePacker {
    pub(crate) fn new(
        lane: usize,
        row_length: usize,
        slot_len: usize,
        pad_id: u32,
        packer: Box<dyn Packer>,
        inboxes: Inboxes,
        entry: LaneEntry,
    ) -> Self {
        Self {
            lane,
            row_length,
            slot_len,
            pad_id,
            spans: inboxes.is_mixture().then(Vec::new),
            returns_spans: false,
            trained: entry.sources.iter().map(|source| source.trained).collect(),
            inboxes,
            packer,
            restoring: Some(entry),
            target: None,
            cursor: Cursor::default(),
            width: row_length,
            beside: Ledger::default(),
            passed_over: Vec::new(),
            not_learned: 0,
        }
    }

    /// Lets what the documents contribute go with each batch.
    pub(crate) fn returning_spans(mut self) -> Self {
        (self.spans, self.returns_spans) = (Some(Vec::new()), true);
        self
    }

    /// Documents passed over since the last call.
    pub(crate) fn take_passed_over(&mut self) -> Vec<(Address, PassedOver)> {
        std::mem::take(&mut self.passed_over)
    }

    /// The lane it packs.
    pub(crate) fn lane(&self) -> usize {
        self.lane
    }

    pub(crate) fn inboxes_mut(&mut self) -> &mut Inboxes {
        &mut self.inboxes
    }

    /// Lets go of every document that is not in the packer, and says where they begin.
    pub(crate) fn rewind(&mut self) -> LaneEntry {
        self.inboxes.rewind();
        self.restoring.clone().unwrap_or_else(|| LaneEntry {
            sources: self.inboxes.sources(&self.trained),
            ..LaneEntry::default()
        })
    }

    /// Whether it holds the slot of its next batch.
    pub(crate) fn has_slot(&self) -> bool {
        matches!(self.target, Some(Target::Slot(_)))
    }

    /// Packs on. `writer` is the slot of the lane's next batch; without one the batch is packed aside.
    pub(crate) fn pack(&mut self, writer: Option<SlotWriter>) -> Result<Outcome> {
        if let Some(mut writer) = writer {
            if let Some(Target::Aside(tokens)) = &self.target {
                writer.tokens_mut().copy_from_slice(tokens);
            }
            self.target = Some(Target::Slot(writer));
        }
        if !self.take_up()? {
            return Ok(Outcome::Pending);
        }
        let target = self.target.get_or_insert_with(|| Target::Aside(vec![0; self.slot_len]));
        let tokens = match target {
            Target::Slot(writer) => writer.tokens_mut(),
            Target::Aside(tokens) => tokens,
        };
        let mut rows = Rows::new(tokens, self.row_length, self.cursor).noting(self.spans.as_mut());
        let progress = match rows.is_full() {
            true => Progress::Full,
            false => self.packer.fill(&mut || self.inboxes.next(), &mut rows),
        };
        (self.cursor, self.width) = (rows.cursor(), rows.width());
        for (address, reason) in self.inboxes.take_passed_over() {
            match reason {
                PassedOver::TooLong => self.beside.left_out_long += 1,
                PassedOver::Unlearned => self.beside.left_out_unlearned += 1,
            }
            self.passed_over.push((address, reason));
        }
        Ok(match progress {
            Progress::Pending => Outcome::Pending,
            Progress::Dry => Outcome::Dry,
            Progress::Full if matches!(self.target, Some(Target::Aside(_))) => Outcome::Aside,
            Progress::Full => self.deliver(),
        })
    }

    /// A batch of padding, after the lane has ended.
    pub(crate) fn pack_padding(&mut self, writer: Option<SlotWriter>) -> Outcome {
        if let Some(writer) = writer {
            self.target = Some(Target::Slot(writer));
        }
        let Some(Target::Slot(writer)) = &mut self.target else { return Outcome::Pending };
        let mut rows = Rows::new(writer.tokens_mut(), self.row_length, Cursor::default());
        while !rows.is_full() {
            self.beside.padding += rows.pad(self.pad_id) as u64;
        }
        self.width = rows.width();
        self.deliver()
    }

    /// Restores the packer once its documents are there; whether it may pack.
    fn take_up(&mut self) -> Result<bool> {
        let Some(entry) = &self.restoring else { return Ok(true) };
        let documents = match entry.packer.waiting.is_empty() {
            true => Some(Vec::new()),
            false => self.inboxes.take_restored(&entry.packer.waiting),
        };
        let Some(documents) = documents else { return Ok(false) };
        self.packer.restore(&entry.packer, documents, entry.ledger)?;
        self.restoring = None;
        Ok(true)
    }

    fn deliver(&mut self) -> Outcome {
        let Some(Target::Slot(mut writer)) = self.target.take() else { return Outcome::Pending };
        let spans = self.spans.as_mut().map(std::mem::take).unwrap_or_default();
        self.count_trained(writer.tokens_mut(), &spans);
        let entry = self.entry();
        let not_learned = entry.ledger.padding + entry.ledger.masked;
        let (mut num_masked, mut masked) = (0, false);
        if std::mem::replace(&mut self.not_learned, not_learned) != not_learned
            || self.width < self.row_length
        {
            for row in writer.tokens_mut().chunks_exact(self.row_length) {
                let masked_in = |tokens: &[i32]| tokens.iter().map(|&token| token as u32 >> 31).sum::<u32>();
                num_masked += masked_in(&row[1..self.width]) as usize;
                masked |= masked_in(&row[..1]) > 0;
            }
        }
        let header = SlotHeader {
            lane: self.lane,
            width: self.width,
            num_targets: self.slot_len / self.row_length * (self.width - 1) - num_masked,
            masked: masked || num_masked > 0,
            spans: if self.returns_spans { spans } else { Vec::new() },
            entry,
        };
        self.cursor = Cursor::default();
        writer.commit();
        Outcome::Delivered(Box::new(header))
    }

    /// Adds the batch's learned targets to those of their sources. A row's first token is no target of that row.
    fn count_trained(&mut self, tokens: &[i32], spans: &[Span]) {
        for span in spans {
            let start = span.row * self.row_length + span.column + usize::from(span.has_bos);
            let first = usize::from(span.column == 0 && !span.has_bos);
            let targets = tokens[start..start + span.num_tokens].iter().skip(first);
            let learned = targets.filter(|&&token| token as u32 & NOT_LEARNED == 0).count();
            self.trained[span.address.source as usize] += learned as u64;
        }
    }

    fn entry(&self) -> LaneEntry {
        let mut ledger = *self.packer.ledger();
        ledger.add(&self.beside);
        LaneEntry {
            sources: self.inboxes.sources(&self.trained),
            packer: self.packer.state(),
            ledger,
            quarantine: self.inboxes.quarantine().clone(),
        }
    }
}
