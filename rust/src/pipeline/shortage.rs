//! What happens when memory is short: the order in which it is granted, and why nobody waits for ever.
//!
//! ```text
//! read ahead          only while a part of the limit is to spare, and nobody waits for memory
//! what packers wait for, in the order of turns          whatever is free
//! refused             gives up what it took and comes again when there is room for it
//! all stand still     the first whose packer waits goes on alone: no other lane reads until it has delivered a batch.
//!                     For it free vectors and shared row groups go; then the pages of the others; then what they have in
//!                     front of their packers, the one whose turn comes last first; then its own; then it is an error
//! ```
//! Whatever is held in front of a packer can be read again by its position, as after a resume. So what a lane needs at
//! least is its packer's documents and one step, and which lane goes on never depends on what others hold. Since nobody
//! reads beside the one that is alone, what was given up stays free for it, and each thing is given up once: there is an
//! end to it, a batch or an error.

use crate::error::Error;
use crate::piece::TOKENS_BYTES;
use crate::plan::Plan;

use super::schedule::{Schedule, Scheduled};
use super::{Seen, Shared};

/// Memory without which no step is begun: room for its tokens, and a page of usual size.
pub(crate) const STEP_MEMORY: usize = TOKENS_BYTES + (2 << 20);

/// What a lane was refused since it last delivered a batch.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    /// Bytes that have to be free before it comes again; 0: it was not refused.
    pub(super) wanted: usize,
    /// What to say if that never is.
    pub(super) error: Option<Error>,
    /// A step is lost: it goes back to its packer's position once the others have come back.
    pub(super) must_rewind: bool,
    /// No other lane reads until it has delivered a batch.
    pub(super) is_alone: bool,
    /// Alone, it has gone back to its packer's position.
    has_gone_back: bool,
}

impl Shortage {
    /// Notes what the lane was refused.
    pub(super) fn refused(&mut self, error: Error) {
        let Error::MemoryLimit { place, wanted, held, limit } = error else { return };
        // A step holds more than the part that was refused: what did not help is doubled, until others make room.
        self.wanted = wanted.max(2 * self.wanted);
        // With that much a usual step follows, so that the number said is one that does.
        self.error =
            Some(Error::MemoryLimit { place, wanted: wanted.saturating_add(STEP_MEMORY), held, limit });
    }

    /// Lets it try once more with whatever there is.
    fn try_again(&mut self) {
        (self.wanted, self.error) = (0, None);
    }
}

impl Scheduled {
    /// Bytes that have to be free for its next step. Alone it tries with whatever there is.
    pub(super) fn least_free(&self) -> usize {
        if self.shortage.is_alone { 0 } else { self.shortage.wanted.max(STEP_MEMORY) }
    }

    /// Lets go of all that lies in front of its packer, which is at hand; it will be read again.
    fn rewind(&mut self, plans: &[Plan]) {
        if let Some(packer) = &mut self.packer {
            let entry = packer.rewind();
            self.feeds.rewind(plans, packer.lane(), &entry);
            (self.shortage.must_rewind, self.is_due) = (false, true);
        }
    }

    /// Whether it could go on if there were memory: alone, a refusal is looked into before it tries again.
    pub(super) fn may_try(&self) -> bool {
        self.waits() && !(self.shortage.is_alone && self.shortage.error.is_some())
    }

    /// Whether its packer waits for what it was refused.
    pub(super) fn is_short(&self) -> bool {
        self.waits() && self.shortage.wanted > 0
    }

    /// Forgets what it was refused: it has come on.
    pub(super) fn relieve(&mut self) {
        self.shortage = Shortage { must_rewind: self.shortage.must_rewind, ..Shortage::default() };
    }
}

impl Shared {
    /// Lets lanes go back that have lost a step.
    pub(super) fn rewind_lanes(&self, schedule: &mut Schedule) {
        for lane in schedule.lanes.iter_mut().filter(|lane| lane.shortage.must_rewind) {
            if lane.is_idle() {
                lane.rewind(&self.work.plans);
            }
        }
    }

    /// Frees vectors that nobody uses, and shared row groups but for the `num_kept` that were used last.
    pub(super) fn reclaim(&self, num_kept: usize) {
        self.work.cache.forget(num_kept);
        self.work.cache.pages().clear();
        self.work.tokens.clear();
    }

    /// When no worker has anything to do: makes room for the lane that is to go on first. Whether something changed.
    pub(super) fn make_room(&self, schedule: &mut Schedule) -> bool {
        let consumer_goes_on = match self.seen(schedule) {
            Ok(Seen::Nothing) => false,
            // It may wait for what lanes know of rounds to come.
            Ok(Seen::Batch) => schedule.num_asking == 0,
            Ok(Seen::End) | Err(_) => true,
        };
        if schedule.running > 0 || consumer_goes_on {
            return false;
        }
        let order = schedule.by_urgency();
        let Some(&first) = order.first().filter(|&&index| schedule.lanes[index].waits()) else {
            return false;
        };
        if !schedule.lanes[first].shortage.is_alone {
            schedule.lanes.iter_mut().for_each(|lane| lane.shortage.is_alone = false);
            let shortage = &mut schedule.lanes[first].shortage;
            (shortage.is_alone, shortage.has_gone_back) = (true, false);
        } else if schedule.lanes[first].shortage.error.is_none() {
            return false; // it has all that it asked for
        } else if !self.give_up(schedule, first, &order[1..]) {
            if let Some(error) = schedule.lanes[first].shortage.error.take() {
                self.fail(schedule, self.said(error));
            }
            return true;
        }
        self.reclaim(1);
        schedule.lanes[first].shortage.try_again();
        true
    }

    /// The error with what is held where the limit is the one that it names: a larger one has larger caches.
    fn said(&self, error: Error) -> Error {
        let Error::MemoryLimit { place, wanted, held, limit } = error else { return error };
        let held = held.saturating_sub(self.work.reserved.num_bytes());
        let held = held.saturating_add(self.work.floor.reserved_beside(held.saturating_add(wanted)));
        Error::MemoryLimit { place, wanted, held, limit }
    }

    /// Lets go of the next thing that the lane which is alone can do without; whether there was any.
    fn give_up(&self, schedule: &mut Schedule, first: usize, others: &[usize]) -> bool {
        let closed = others.iter().filter(|&&index| schedule.lanes[index].feeds.close_readers()).count();
        if closed > 0 {
            return true;
        }
        let holds = |index: &&usize| schedule.lanes[**index].feeds.holds_memory();
        if let Some(&last) = others.iter().rev().find(holds) {
            schedule.lanes[last].rewind(&self.work.plans);
            return true;
        }
        let lane = &mut schedule.lanes[first];
        if lane.shortage.has_gone_back {
            return false;
        }
        lane.shortage.has_gone_back = true;
        lane.rewind(&self.work.plans);
        self.reclaim(0);
        true
    }
}
