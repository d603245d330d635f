//! The two jobs of a worker: packing a lane, and reading and tokenizing for one.

use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, Place, Result};
use crate::feed::Step;
use crate::giants::{OtherThreads, Parts};
use crate::lane::{LanePacker, Outcome};
use crate::metrics::{LeftOut, Stage};
use crate::piece::{PieceMaker, TOKENS_BYTES};
use crate::plan::Unit;
use crate::source::take_time_reading;
use crate::sync::lock;
use crate::tokenizer::DocumentEncoder;

use super::Shared;
use super::schedule::{Packing, Scheduled};

impl Shared {
    /// Packs a lane as far as its documents go.
    pub(super) fn pack(&self, packing: Packing) -> Result<()> {
        let Packing { lane: index, mut packer, mut writer, is_padding } = packing;
        let start = self.begin(Stage::Pack)?;
        loop {
            {
                let mut schedule = lock(&self.schedule);
                let lane = &mut schedule.lanes[index];
                lane.feeds.deliver(&self.work.plans, packer.inboxes_mut())?;
                lane.is_due = false;
            }
            let outcome = match is_padding {
                true => packer.pack_padding(writer.take()),
                false => packer.pack(writer.take())?,
            };
            self.pass_over(&mut packer)?;
            let mut schedule = lock(&self.schedule);
            let (count, round) =
                (schedule.lanes.len() as u64, schedule.round_of(schedule.lanes[index].sequence));
            let lane = &mut schedule.lanes[index];
            lane.feeds.taken(packer.inboxes_mut());
            match outcome {
                Outcome::Pending if lane.is_due => continue, // more came meanwhile
                Outcome::Pending => lane.awaited = Some(packer.inboxes_mut().awaited()),
                Outcome::Aside => {
                    (lane.is_aside, lane.is_due) = (true, true); // its slot may have come meanwhile
                    lane.relieve();
                }
                Outcome::Dry => {
                    (lane.is_dry, lane.data_rounds) = (true, round);
                    lane.relieve();
                    // Whether the others have a batch for this round decides what this lane delivers.
                    schedule.lanes.iter_mut().for_each(|lane| lane.is_due = true);
                }
                Outcome::Delivered(header) => {
                    let sequence = lane.sequence;
                    lane.sequence += count;
                    (lane.is_due, lane.is_aside) = (true, false);
                    lane.relieve();
                    schedule.headers[self.work.ring.slot_of(sequence)] = Some(header);
                    self.batch.ring_all();
                }
            }
            schedule.lanes[index].packer = Some(packer);
            drop(schedule);
            self.work.metrics.spent(Stage::Pack, start);
            self.job.ring_all();
            if self.work.ending.drop_last || self.work.ending.is_shared {
                self.batch.ring_all();
            }
            return Ok(());
        }
    }

    /// Reads the rows of a step, gives the reader back, and deposits their tokens.
    pub(super) fn read(
        &self,
        index: usize,
        mut step: Step,
        encoder: &mut Option<DocumentEncoder>,
    ) -> Result<()> {
        let start = self.begin(Stage::Decode)?;
        let mut taken = self.take_encoder(encoder);
        let unit = step.reader.unit();
        let maker = PieceMaker {
            source: step.source,
            unit,
            ordinal: step.ordinal,
            group: step.group,
            wanted: step.wanted.clone(),
            is_restoring: step.is_restoring,
            bad_data: self.work.bad_data,
            excluded: &self.work.excluded,
            shard: &self.work.shards[unit.shard],
            is_kept: self.work.plans[0].config().shuffle,
        };
        let first_row = step.reader.next_row();
        // Room for the tokens is there before anything is read.
        let room = self.work.account.charge(TOKENS_BYTES).map_err(|refused| refused.at(self.place(unit)));
        let prepared = room.and_then(|room| {
            let found = step.reader.next(&self.work.shards, &self.work.cache)?;
            maker.prepare(found, &taken, &self.work.tokens, room)
        });
        let prepared = match prepared {
            Err(error @ Error::MemoryLimit { .. }) => {
                *encoder = Some(taken);
                if step.reader.next_row() > first_row {
                    step.reader.go_back(first_row);
                }
                self.refuse(index, error, |lane| lane.feeds.unread(step));
                return Ok(());
            }
            prepared => prepared?,
        };
        let reading = take_time_reading();
        self.work.metrics.add(Stage::Read, reading);
        self.work.metrics.add(Stage::Decode, start.elapsed().saturating_sub(reading));
        let finished = step.reader.is_finished();
        let ticket = lock(&self.schedule).lanes[index].feeds.read(step);
        if !finished {
            self.job.ring_one();
        }

        let start = self.begin(Stage::Tokenize)?;
        let offer = |parts: &Arc<Parts>| {
            lock(&self.schedule).giants.push(parts.clone());
            self.job.ring_all();
        };
        let others =
            OtherThreads { offer: &offer, came_on: &|| self.job.ring_one(), stopping: &self.stopping };
        let made = maker.make(prepared, &mut taken, &others);
        let made = match made {
            Err(error @ Error::MemoryLimit { .. }) => {
                *encoder = Some(taken);
                self.refuse(index, error, |lane| {
                    lane.feeds.abandon(ticket);
                    lane.shortage.must_rewind = true;
                });
                return Ok(());
            }
            made => made?,
        };
        // Nor does one that was stopped in the middle of a word, with a cache that may hold anything.
        let counts = taken.inner().take_counts();
        *encoder = (!taken.inner().was_stopped()).then_some(taken);
        let Some(piece) = made else { return Ok(()) };
        self.work.metrics.looked_up(counts.pretokens, counts.merged);
        self.work.metrics.spent(Stage::Tokenize, start);
        let num_bytes = piece.num_bytes.iter().sum::<u64>() as usize;
        self.work.metrics.tokenized(piece.rows.len(), num_bytes, piece.tokens.num_tokens());
        let mut schedule = lock(&self.schedule);
        let lane = &mut schedule.lanes[index];
        lane.feeds.deposit(ticket, piece);
        lane.is_due = true;
        drop(schedule);
        self.job.ring_one();
        Ok(())
    }

    /// Encodes a part of a giant that another thread puts together.
    pub(super) fn help(&self, parts: &Parts, encoder: &mut Option<DocumentEncoder>) -> Result<()> {
        let start = self.begin(Stage::Tokenize)?;
        let mut taken = self.take_encoder(encoder);
        parts.help(taken.inner());
        let counts = taken.inner().take_counts();
        *encoder = (!taken.inner().was_stopped()).then_some(taken);
        self.work.metrics.looked_up(counts.pretokens, counts.merged);
        self.work.metrics.spent(Stage::Tokenize, start);
        Ok(())
    }

    /// The thread's encoder, out of its hands meanwhile: one that panics does not come back.
    fn take_encoder(&self, encoder: &mut Option<DocumentEncoder>) -> DocumentEncoder {
        encoder.take().unwrap_or_else(|| {
            let mut encoder = self.work.encoding.encoder(self.work.cache_bytes);
            encoder.inner().stop_with(Some(self.stopping.clone()));
            encoder
        })
    }

    /// A lane that was refused memory comes again when there is some.
    fn refuse(&self, index: usize, error: Error, give_back: impl FnOnce(&mut Scheduled)) {
        self.reclaim(1); // the last is the one that it reads
        let mut schedule = lock(&self.schedule);
        give_back(&mut schedule.lanes[index]);
        schedule.lanes[index].shortage.refused(error);
    }

    /// When a stage begins.
    #[cfg_attr(
        not(test),
        expect(clippy::unnecessary_wraps, unused_variables, reason = "tests let stages fail")
    )]
    fn begin(&self, stage: Stage) -> Result<Instant> {
        #[cfg(test)]
        (self.work.fault)(stage)?;
        Ok(Instant::now())
    }

    /// Lists the documents that a lane passed over; an error when there was nothing else in a whole epoch.
    fn pass_over(&self, packer: &mut LanePacker) -> Result<()> {
        let (lane, plans) = (packer.lane(), &self.work.plans);
        for (address, reason) in packer.take_passed_over() {
            if let Some(unit) = plans[address.source as usize].unit(lane, address.ordinal) {
                let place = Place { row: Some(address.row), ..self.place(unit) };
                self.work.metrics.left_out(LeftOut { place, reason: reason.reason() });
            }
        }
        match packer.inboxes_mut().passed_over_all(plans) {
            Some(num_documents) => Err(Error::NothingLearned { lane, num_documents }),
            None => Ok(()),
        }
    }

    /// Where a unit lies.
    pub(super) fn place(&self, unit: Unit) -> Place {
        Place::row_group(self.work.shards[unit.shard].path(), unit.row_group)
    }
}
