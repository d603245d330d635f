//! What happens when memory is short: the order in which it is granted, and why nobody waits for ever.
//!
//! ```text
//! read ahead          only while a part of the limit is to spare
//! what packers wait for, in the order of turns          whatever is free
//! refused             gives up what it took and comes again when there is room for it
//! all stand still     free vectors and shared row groups go; then lanes go back to their packers' positions, the one
//!                     whose turn comes last first; then the first goes on alone; then it is an error
//! ```
//! Whatever is held in front of a packer can be read again by its position, as after a resume. So what a lane needs at
//! least is its packer's documents and one step, and which lane goes on never depends on what others hold.

use crate::error::Error;
use crate::feed::STEP_BYTES;
use crate::plan::Plan;

use super::schedule::{Schedule, Scheduled};
use super::{Seen, Shared};

/// Memory without which no step is begun: room for its tokens, a token a byte, and a page of usual size.
pub(crate) const STEP_MEMORY: usize = 4 * STEP_BYTES + (2 << 20);

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

    /// Whether it could go on if there were memory: alone it tries once.
    pub(super) fn may_try(&self) -> bool {
        self.waits() && !(self.shortage.is_alone && self.shortage.error.is_some())
    }

    /// Forgets what it was refused: it has come on.
    pub(super) fn relieve(&mut self) {
        self.shortage = Shortage { must_rewind: self.shortage.must_rewind, ..Shortage::default() };
    }

    /// Notes what it was refused, where `freed` bytes of what was held then are free by now.
    pub(super) fn refused(&mut self, error: Error, freed: usize) {
        let Error::MemoryLimit { place, wanted, held, limit } = error else { return };
        // Alone it had all that could be freed, and what was freed since is its own.
        let held = if self.shortage.is_alone { held } else { held.saturating_sub(freed) };
        // A step holds more than the part that was refused: what did not help is doubled, until others make room.
        self.shortage.wanted = wanted.max(2 * self.shortage.wanted);
        if self.shortage.is_alone || held.saturating_add(wanted) > limit {
            self.shortage.error = Some(Error::MemoryLimit { place, wanted, held, limit });
        }
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

    /// Frees what nobody uses; how many bytes that were.
    pub(super) fn reclaim(&self) -> usize {
        let used = self.work.account.used();
        self.work.cache.clear();
        self.work.cache.pages().clear();
        self.work.tokens.clear();
        used.saturating_sub(self.work.account.used())
    }

    /// When no worker has anything to do: makes room for the lane that is to go on first. Whether something changed.
    pub(super) fn make_room(&self, schedule: &mut Schedule) -> bool {
        let consumer_goes_on = match self.seen(schedule) {
            Ok(Seen::Nothing) => false,
            // It may wait for what lanes know of rounds to come.
            Ok(Seen::Batch) => !self.work.ending.is_shared,
            Ok(Seen::End) | Err(_) => true,
        };
        if schedule.running > 0 || consumer_goes_on {
            return false;
        }
        let order = schedule.by_urgency();
        let Some(&first) = order.first().filter(|&&index| schedule.lanes[index].waits()) else {
            return false;
        };
        if self.reclaim() > 0 {
            return true;
        }
        let holds = |index: &&usize| schedule.lanes[**index].feeds.holds_memory();
        if let Some(&last) = order.iter().skip(1).rev().find(holds) {
            schedule.lanes[last].rewind(&self.work.plans);
            return true;
        }
        let lane = &mut schedule.lanes[first];
        if !lane.shortage.is_alone {
            lane.shortage.is_alone = true;
            (lane.shortage.wanted, lane.shortage.error) = (0, None);
            lane.rewind(&self.work.plans);
            return true;
        }
        match lane.shortage.error.take() {
            Some(error) => {
                self.fail(schedule, error);
                true
            }
            None => false,
        }
    }
}
