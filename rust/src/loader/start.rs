//! Starting the threads: what the settings mean for packer, feeds and read-ahead of each lane.

use std::sync::Arc;

use super::{Loader, Source};
use crate::account::Account;
use crate::admission::Admission;
use crate::config::{Overflow, Packing, TooLong};
use crate::error::{Error, Result};
use crate::feed::STEP_BYTES;
use crate::floor::Floor;
use crate::lane::LanePacker;
use crate::packing::{Carry, Concat, Crop, Cut, OnePerRow, Packer, Pad};
use crate::pipeline::{Batches, Ending, Lane, Pipeline, Work};
use crate::pool::Pool;
use crate::ring::{Ring, SlotMemory};
use crate::row_groups::RowGroupCache;
use crate::sources::{Feeds, Inboxes};
use crate::tokenizer::Encoding;
use crate::window_pipeline::WindowPipeline;

impl Loader {
    pub(super) fn start(&mut self) -> Result<Arc<dyn Batches>> {
        let slot_len = self.config.slot_len();
        let memory = match self.memory.take() {
            Some(memory) => memory,
            None => SlotMemory::owned(slot_len * self.config.num_slots),
        };
        self.first_round = self.round;
        let ring = Ring::new(memory, self.config.num_slots, slot_len);
        let (shards, encoding) = match &self.source {
            Source::Text { shards, encoding } => (shards.clone(), encoding.clone()),
            Source::Windows(windows) => {
                let (windows, metrics) = (windows.clone(), self.metrics.clone());
                let started =
                    WindowPipeline::start(windows, &self.config, ring, metrics, &self.entries, self.turn)?;
                return Ok(Arc::new(started));
            }
        };
        let lanes = self.config.own_lanes().into_iter().zip(&self.entries).map(|(lane, entry)| {
            let packer = LanePacker::new(
                lane,
                self.config.sequence_length + 1,
                slot_len,
                self.config.pad_id,
                self.packer(),
                Inboxes::new(self.config.mixture.as_ref(), self.admission(), self.added_tokens(), entry),
                entry.clone(),
            );
            let feeds = Feeds::new(&self.plans, self.config.mixture.as_ref(), lane, entry);
            let packer = if self.config.return_documents { packer.returning_spans() } else { packer };
            Lane { feeds, packer }
        });
        let lanes: Vec<_> = lanes.collect();
        let limit = self.config.memory_limit_bytes;
        let floor = Floor::new(&self.config, &self.plans, &shards);
        let (account, cache_bytes) = (Account::new(limit), floor.cache_bytes(limit));
        let ahead = Account::new(floor.ahead_bytes(limit));
        let reserved = account.charge(floor.reserved_bytes(limit)).map_err(|_| {
            let rule = "the ring and the caches do not fit";
            Error::config("memory_limit_bytes", limit, rule)
        })?;
        // Of what is left, a quarter for text read ahead (its tokens take about as much again), a quarter for shared row
        // groups, and a quarter that reading ahead leaves alone. Within that: four steps a thread over all lanes, so that
        // none idles while another finishes what is next, and the text of two batches a lane (a token is about 4.5 bytes
        // of English).
        let share = account.free() / 4;
        let busy = 4 * STEP_BYTES * self.config.num_threads / lanes.len();
        let read_ahead_bytes = busy.max(2 * slot_len * 9 / 2).min(share / lanes.len()).max(STEP_BYTES);
        let work = Work {
            plans: self.plans.clone(),
            shards,
            encoding,
            ring,
            cache: RowGroupCache::new(share, &Pool::with_ahead(&account, &ahead)),
            tokens: Pool::within(&account),
            account,
            floor,
            reserved,
            spare_bytes: share,
            cache_bytes,
            metrics: self.metrics.clone(),
            bad_data: self.config.bad_data,
            excluded: self.excluded.clone(),
            read_ahead_bytes,
            ending: Ending { drop_last: self.config.plan.drop_last, is_shared: self.shares_end },
            // A lane that ends with one of its sources leaves what it has of the others; conversations bring their BOS
            // or none, and some are passed over. So their tokens say less.
            keeps_tokens: self.config.mixture.is_none()
                && self.config.chat.is_none()
                && matches!(self.config.packing, Packing::Concat | Packing::BestFit(Overflow::Carry)),
            #[cfg(test)]
            fault: self.fault,
        };
        Ok(Arc::new(Pipeline::start(work, lanes, self.turn, self.config.num_threads)?))
    }

    /// What of a document that is longer than a row is used.
    fn cut(&self) -> Cut {
        let cuts_left = self.config.chat.as_ref().is_some_and(|chat| chat.too_long == TooLong::CutLeft);
        match &self.source {
            Source::Text { encoding: Encoding::Conversations(renderer), .. } if cuts_left => {
                Cut::Left { keeps_first: renderer.has_bos() }
            }
            _ => Cut::End,
        }
    }

    /// In rows of whole conversations, those that no row could use are passed over.
    fn admission(&self) -> Option<Admission> {
        let chat = self.config.chat.as_ref().filter(|_| self.config.packing != Packing::Concat)?;
        let (row_length, cut) = (self.config.sequence_length + 1, self.cut());
        Some(Admission { row_length, cut, leaves_out_long: chat.too_long == TooLong::LeaveOut })
    }

    /// What the packer adds to each document: a BOS to texts; conversations bring their own.
    fn added_tokens(&self) -> u64 {
        u64::from(self.config.chat.is_none())
    }

    fn packer(&self) -> Box<dyn Packer> {
        let (bos, pad) = (self.config.bos_id, self.config.pad_id);
        let added = (self.added_tokens() > 0).then_some(bos);
        match self.config.packing {
            Packing::Concat => Box::new(Concat::new(added, pad)),
            Packing::BestFit(Overflow::Carry) => Box::new(Carry::new(bos, pad)),
            Packing::BestFit(Overflow::Crop) => Box::new(Crop::new(bos, pad)),
            Packing::BestFit(Overflow::Pad) => Box::new(Pad::new(added, pad).cutting(self.cut())),
            Packing::OnePerRow => Box::new(OnePerRow::new(added, pad).cutting(self.cut())),
        }
    }
}
