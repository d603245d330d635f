//! The schedule: where each lane stands, and what is the most urgent thing to do.

use std::sync::Arc;

use crate::error::Error;
use crate::feed::Step;
use crate::giants::Parts;
use crate::lane::{LanePacker, SlotHeader};
use crate::metrics::Stage;
use crate::ring::SlotWriter;
use crate::sources::Feeds;

use super::shortage::{STEP_MEMORY, Shortage};
use super::{Lane, Shared, Work};

/// A lane to pack: with its next slot, unless it holds it already or packs aside.
pub(super) struct Packing {
    pub(super) lane: usize,
    pub(super) packer: Box<LanePacker>,
    pub(super) writer: Option<SlotWriter>,
    /// The lane has ended and others have not: its batch is padding.
    pub(super) is_padding: bool,
}

/// What a worker does next.
pub(super) enum Job {
    Pack(Packing),
    Help(Arc<Parts>),
    Read(usize, Step),
}

/// A lane.
pub(super) struct Scheduled {
    pub(super) feeds: Feeds,
    /// `None` while a worker packs.
    pub(super) packer: Option<Box<LanePacker>>,
    /// The batch that it packs next.
    pub(super) sequence: u64,
    /// Documents, the end, or a slot may have come since it was last packed.
    pub(super) is_due: bool,
    pub(super) is_dry: bool,
    /// Rounds before it was found dry.
    pub(super) data_rounds: u64,
    /// Its next batch is complete and waits for a slot.
    pub(super) is_aside: bool,
    /// The source whose next document the packer waits for, since it was last packed.
    pub(super) awaited: Option<usize>,
    /// What it was refused memory for.
    pub(super) shortage: Shortage,
}

/// All lanes, and what is between them and the consumer.
pub(super) struct Schedule {
    pub(super) lanes: Vec<Scheduled>,
    pub(super) headers: Vec<Option<Box<SlotHeader>>>,
    /// The batch that is delivered next.
    pub(super) next: u64,
    /// Place of batch 0 within its round.
    pub(super) turn: u64,
    /// The batch behind the last one.
    pub(super) end: Option<u64>,
    /// Rounds that some rank has data for, as far as the ranks have told each other.
    pub(super) granted: u64,
    /// Slots that the consumer has given back.
    pub(super) released: u64,
    /// Giants that threads work on.
    pub(super) giants: Vec<Arc<Parts>>,
    /// Workers that have a job.
    pub(super) running: usize,
    /// Callers who wait for what lanes know of rounds to come.
    pub(super) num_asking: usize,
    pub(super) error: Option<Error>,
    pub(super) stopping: bool,
}

impl Scheduled {
    /// A lane that nothing was done for.
    pub(super) fn new(lane: Lane, sequence: u64) -> Self {
        Self {
            feeds: lane.feeds,
            packer: Some(Box::new(lane.packer)),
            sequence,
            is_due: true,
            is_dry: false,
            data_rounds: 0,
            is_aside: false,
            awaited: None,
            shortage: Shortage::default(),
        }
    }

    /// Whether its packing waits for documents.
    pub(super) fn waits(&self) -> bool {
        self.awaited.is_some() && self.packer.is_some() && !self.is_dry
    }

    /// Whether no thread reads or packs for it.
    pub(super) fn is_idle(&self) -> bool {
        self.packer.is_some() && self.feeds.in_flight() == 0
    }
}

impl Schedule {
    /// What a thread does that finds nothing to do.
    pub(super) fn reason_to_wait(&self) -> Stage {
        let ready = self.headers.iter().flatten().count() as u64;
        let held = self.next - self.released;
        if ready + held >= self.headers.len() as u64 { Stage::RingFull } else { Stage::Idle }
    }

    /// Lanes whose packing waits for documents, in the order of their turns; then those that are least far ahead, so that
    /// lanes which share a row group pass through it together.
    pub(super) fn by_urgency(&self) -> Vec<usize> {
        let count = self.lanes.len();
        let first = ((self.turn + self.next) % count as u64) as usize;
        let mut order: Vec<usize> = (first..count).chain(0..first).collect();
        order.sort_by_key(|&index| {
            let lane = &self.lanes[index];
            if lane.waits() { (false, 0) } else { (true, lane.feeds.queued_bytes()) }
        });
        order
    }

    /// The round of a batch, counted from the one that batch 0 lies in.
    pub(super) fn round_of(&self, sequence: u64) -> u64 {
        (self.turn + sequence) / self.lanes.len() as u64
    }

    /// Notes the end when every lane is dry and has delivered `rounds` rounds; whether that is so.
    pub(super) fn ends_with(&mut self, rounds: u64) -> bool {
        let ends = self.lanes.iter().all(|lane| lane.is_dry && self.round_of(lane.sequence) >= rounds);
        if ends {
            self.end = Some(self.first_of_round(rounds));
        }
        ends
    }

    fn first_of_round(&self, round: u64) -> u64 {
        (round * self.lanes.len() as u64).saturating_sub(self.turn)
    }

    /// See `Pipeline::known_rounds`.
    pub(super) fn known_rounds(&self, work: &Work) -> (u64, bool) {
        let known = self.lanes.iter().map(|lane| {
            let ahead = if work.keeps_tokens { lane.feeds.queued_tokens() / work.ring.slot_len() } else { 0 };
            match lane.is_dry {
                true => lane.data_rounds,
                false => self.round_of(lane.sequence) + lane.is_aside as u64 + ahead as u64,
            }
        });
        if work.ending.drop_last {
            let rounds = known.min().unwrap_or(0);
            let is_last = |lane: &Scheduled| lane.is_dry && lane.data_rounds == rounds;
            (rounds, self.lanes.iter().any(is_last))
        } else {
            (known.max().unwrap_or(0), self.lanes.iter().all(|lane| lane.is_dry))
        }
    }

    /// Rounds in which some lane is known to have data.
    pub(super) fn rounds_with_data(&self) -> u64 {
        let rounds = self.lanes.iter().map(|lane| match (lane.is_dry, lane.is_aside) {
            (true, _) => lane.data_rounds,
            (false, aside) => self.round_of(lane.sequence) + aside as u64,
        });
        rounds.max().unwrap_or(0)
    }
}

impl Shared {
    /// A lane whose slot is free and whose documents, or whose end, may be there.
    pub(super) fn pack_job(&self, schedule: &mut Schedule) -> Option<Job> {
        let ending = self.work.ending;
        let any_dry = schedule.lanes.iter().any(|lane| lane.is_dry);
        let end_round =
            (any_dry && !ending.drop_last).then(|| schedule.rounds_with_data().max(schedule.granted));
        if end_round.is_some_and(|end| !ending.is_shared && schedule.ends_with(end)) {
            self.batch.ring_all();
        }
        let asks_ahead = any_dry || ending.drop_last || ending.is_shared;
        for index in 0..schedule.lanes.len() {
            let lane = &schedule.lanes[index];
            let pads = lane.is_dry && end_round.is_some_and(|end| schedule.round_of(lane.sequence) < end);
            if !(pads || lane.is_due && !lane.is_dry) {
                continue;
            }
            let Some(packer) = &lane.packer else { continue };
            let has_slot = packer.has_slot();
            let writer = if has_slot { None } else { self.work.ring.write_slot(lane.sequence) };
            // Without a slot a batch is packed aside only where another lane has to know that there is one.
            let may_pack = has_slot || writer.is_some() || (asks_ahead && !pads && !lane.is_aside);
            let lane = &mut schedule.lanes[index];
            lane.is_due = false;
            if may_pack {
                lane.awaited = None;
            }
            if let Some(packer) = may_pack.then(|| lane.packer.take()).flatten() {
                return Some(Job::Pack(Packing { lane: index, packer, writer, is_padding: pads }));
            }
        }
        None
    }

    /// A part of a giant, where memory is to spare and nobody is short of it.
    pub(super) fn help_job(&self, schedule: &mut Schedule) -> Option<Job> {
        schedule.giants.retain(|parts| !parts.is_over());
        let is_alone = |lane: &Scheduled| lane.shortage.is_alone;
        if !self.has_room() || schedule.lanes.iter().any(is_alone) {
            return None;
        }
        schedule.giants.iter().find(|parts| parts.wants_help()).map(|parts| Job::Help(parts.clone()))
    }

    /// Whether memory is to spare.
    fn has_room(&self) -> bool {
        self.work.account.free() >= self.work.spare_bytes + STEP_MEMORY
    }

    /// Reads what a packer waits for, else ahead where memory is to spare.
    pub(super) fn read_job(&self, schedule: &mut Schedule) -> Option<Job> {
        let order = schedule.by_urgency();
        let account = &self.work.account;
        let alone = schedule.lanes.iter().position(|lane| lane.shortage.is_alone);
        let is_short = alone.is_some() || schedule.lanes.iter().any(Scheduled::is_short);
        order.into_iter().find_map(|index| {
            let lane = &mut schedule.lanes[index];
            if lane.shortage.must_rewind || alone.is_some_and(|alone| alone != index || !lane.is_idle()) {
                return None;
            }
            let awaited = lane.awaited.filter(|_| lane.may_try() && account.free() >= lane.least_free());
            let front = awaited.and_then(|source| lane.feeds.front_step(&self.work.plans, source));
            let step = match front {
                Some(step) => step,
                None if is_short || lane.shortage.wanted > 0 || !self.has_room() => return None,
                None => lane.feeds.next_step(&self.work.plans, self.work.read_ahead_bytes)?,
            };
            self.ask_ahead(lane, &step);
            Some(Job::Read(index, step))
        })
    }

    /// Asks a server for what a lane reads after a step. Under the lock, so that nobody comes to read it meanwhile.
    fn ask_ahead(&self, lane: &Scheduled, step: &Step) {
        let Work { shards, plans, cache, .. } = &self.work;
        if shards[step.reader.unit().shard].is_remote() {
            lane.feeds.units_behind(plans, step).iter().for_each(|unit| cache.begin(shards, unit));
        }
    }
}
