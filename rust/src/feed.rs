//! One lane's documents in order: what to read next, and the pieces as they finish.
//!
//! ```text
//! plan ──▶ Feed: segments of units ──▶ steps for any thread ──▶ tokenized pieces ──▶ Inbox: documents in order
//!          (under the pipeline's lock)  (outside the lock)      (under the lock)     (whoever packs the lane)
//! ```
//! A segment is what has to be complete before its documents can be ordered: one unit, delivered piece by piece; a
//! shuffle window; or the scattered documents that a restored packer holds.

mod inbox;
mod segment;
mod step;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub(crate) use inbox::{Inbox, Taken};
use segment::{Order, Segment, Start, UnitRead};
pub(crate) use step::{Step, Ticket, Wanted};

use crate::error::{Error, Result};
use crate::piece::Piece;
use crate::plan::{Plan, Unit, permuted};
use crate::reorder::Reorder;
use crate::row_groups::UnitReader;
use crate::state::{Address, Waiting};

/// The reading side of one source of a lane.
#[derive(Debug)]
pub(crate) struct Feed {
    source: u32,
    lane: usize,
    /// Where the next segment begins; `None` when the plan has ended.
    opens: Option<Address>,
    segments: VecDeque<Segment>,
    /// Number of the segment at the front.
    front: u64,
    /// Bytes of text that are read, or being read, and not yet taken by the packer.
    queued_bytes: usize,
    /// Tokens of these, a BOS for each document included.
    queued_tokens: usize,
    in_flight: usize,
    /// Pieces without a document in all segments.
    num_empty: usize,
    /// First of the units without a document that lie behind the last one with any.
    empty_since: Option<u64>,
}

/// Units behind the one that is read whose bytes are asked for: while a lane's share of the threads works through one row
/// group, the next one's first bytes come, and those of another where row groups are small.
const UNITS_BEHIND: usize = 2;

/// Text of one step, about: what a reader's batch is made to hold.
pub(crate) const STEP_BYTES: usize = 256 << 10;

impl Feed {
    /// The documents of a lane from `position` on, after those that a restored packer holds.
    pub(crate) fn new(plan: &Plan, lane: usize, position: Address, waiting: &[Waiting]) -> Self {
        let mut feed = Self {
            source: position.source,
            lane,
            opens: Some(position),
            segments: VecDeque::new(),
            front: 0,
            queued_bytes: 0,
            queued_tokens: 0,
            in_flight: 0,
            num_empty: 0,
            empty_since: None,
        };
        if !waiting.is_empty() {
            let mut rows: BTreeMap<u64, Vec<Wanted>> = BTreeMap::new();
            for document in waiting {
                let wanted = Wanted { row: document.address.row, byte_offset: document.byte_offset };
                rows.entry(document.address.ordinal).or_default().push(wanted);
            }
            let units = rows.into_iter().filter_map(|(ordinal, mut rows)| {
                rows.sort_unstable();
                feed.read_unit(plan, ordinal, Some(rows))
            });
            let units = units.collect();
            feed.segments.push_back(Segment { order: Order::Listed(waiting.to_vec()), units });
        }
        // A position at the end of the last unit is the end of the lane, and no step would come to tell.
        if position.row > 0 {
            feed.open_segment(plan);
        }
        feed
    }

    fn read_unit(&self, plan: &Plan, ordinal: u64, wanted: Option<Vec<Wanted>>) -> Option<UnitRead> {
        let unit = plan.unit(self.lane, ordinal)?;
        let (start, end) = match &wanted {
            Some(rows) => (rows.first()?.row, rows.last()?.row + 1),
            None => (unit.start, unit.end),
        };
        Some(UnitRead {
            ordinal,
            group: plan.group_of(self.lane, ordinal),
            reader: Some(UnitReader::new(unit, start, end)),
            is_whole: wanted.is_none(),
            wanted: wanted.map(Arc::new),
            finished: false,
            num_documents: 0,
            num_empty: 0,
            issued: 0,
            deposited: 0,
            pieces: Reorder::new(),
        })
    }

    /// The next thing to read, if reading further ahead than `target_bytes` is not needed for that.
    pub(crate) fn next_step(&mut self, plan: &Plan, target_bytes: usize) -> Option<Step> {
        let ahead = self.queued_bytes + (self.in_flight + self.num_empty) * STEP_BYTES >= target_bytes;
        let mut index = 0;
        loop {
            // What lies behind the front only fills the time. The front itself must be read on when the packer has
            // nothing of it to come, however much of later units is held; and a window must be read whole.
            if ahead && !(index == 0 && self.segments.front().is_some_and(Segment::must_go_on)) {
                return None;
            }
            if index == self.segments.len() && !self.open_segment(plan) {
                return None;
            }
            if let Some(step) = self.step_of(index) {
                return Some(step);
            }
            index += 1;
        }
    }

    /// The next thing to read of the segment at the front: what the packer waits for when it has nothing.
    pub(crate) fn front_step(&mut self, plan: &Plan) -> Option<Step> {
        if self.segments.is_empty() && !self.open_segment(plan) {
            return None;
        }
        self.step_of(0)
    }

    /// A unit of the `index`-th segment that is not read to its end and that no thread reads.
    fn step_of(&mut self, index: usize) -> Option<Step> {
        let segment = &mut self.segments[index];
        let is_restoring = matches!(segment.order, Order::Listed(_));
        let mut units = segment.units.iter_mut().enumerate();
        let (unit, read, reader) = units.find_map(|(unit, read)| {
            let reader = read.reader.take()?;
            Some((unit, read, reader))
        })?;
        let sequence = read.issued;
        read.issued += 1;
        self.in_flight += 1;
        Some(Step {
            source: self.source,
            segment: self.front + index as u64,
            unit,
            sequence,
            reader,
            ordinal: read.ordinal,
            group: read.group,
            wanted: read.wanted.clone(),
            is_restoring,
        })
    }

    /// The units that come after that of a step: those of open segments that nobody has begun, then those of the plan.
    pub(crate) fn units_behind(&self, plan: &Plan, step: &Step) -> Vec<Unit> {
        let index = (step.segment - self.front) as usize;
        let rest = self.segments[index].units.iter().skip(step.unit + 1);
        let open = rest.chain(self.segments.iter().skip(index + 1).flat_map(|segment| &segment.units));
        let open = open.filter_map(|read| read.reader.as_ref()).filter(|reader| reader.is_fresh());
        let first = self.opens.map_or(u64::MAX, |position| position.ordinal);
        let planned = first..first.saturating_add(UNITS_BEHIND as u64);
        let planned = planned.map_while(|ordinal| plan.unit(self.lane, ordinal));
        open.map(UnitReader::unit).chain(planned).take(UNITS_BEHIND).collect()
    }

    /// Takes back a step that read nothing: it will be given out again.
    pub(crate) fn unread(&mut self, step: Step) {
        let unit = &mut self.segments[(step.segment - self.front) as usize].units[step.unit];
        unit.issued -= 1;
        unit.reader = Some(step.reader);
        self.in_flight -= 1;
    }

    /// Tells that no piece comes of a step whose rows were read: the lane has to go back to where its packer is.
    pub(crate) fn abandon(&mut self) {
        self.in_flight -= 1;
    }

    /// Steps that are given out and not come back.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether it holds anything that can be read again: text, tokens or pages.
    pub(crate) fn holds_memory(&self) -> bool {
        self.queued_bytes > 0
            || self.segments.iter().flat_map(|segment| &segment.units).any(UnitRead::is_open)
    }

    /// Lets go of the pages that no thread reads; whether there were any.
    pub(crate) fn close_readers(&mut self) -> bool {
        let mut any = false;
        for unit in self.segments.iter_mut().flat_map(|segment| &mut segment.units) {
            if let Some(reader) = unit.reader.as_mut().filter(|reader| reader.is_open()) {
                reader.close();
                any = true;
            }
        }
        any
    }

    fn open_segment(&mut self, plan: &Plan) -> bool {
        let Some(position) = self.opens.take() else { return false };
        let segment = if plan.config().shuffle {
            self.open_window(plan, position)
        } else {
            self.open_unit(plan, position)
        };
        match segment {
            Some((segment, next)) => {
                self.opens = Some(next);
                if segment.is_complete() {
                    return self.open_segment(plan); // its documents were all admitted before the state was taken
                }
                self.segments.push_back(segment);
                true
            }
            None => false,
        }
    }

    fn open_unit(&self, plan: &Plan, position: Address) -> Option<(Segment, Address)> {
        let mut read = self.read_unit(plan, position.ordinal, None)?;
        if let Some(unit) = read.reader.as_ref().map(UnitReader::unit) {
            let start = position.row.max(unit.start);
            read.is_whole = start == unit.start;
            read.reader = (start < unit.end).then(|| UnitReader::new(unit, start, unit.end));
            read.finished = read.reader.is_none();
        }
        let next = Address { ordinal: position.ordinal + 1, row: 0, ..position };
        Some((Segment { order: Order::Rows, units: vec![read] }, next))
    }

    fn open_window(&self, plan: &Plan, position: Address) -> Option<(Segment, Address)> {
        let window = plan.window(self.lane, position.ordinal)?;
        let units =
            (window.first..window.end).map_while(|ordinal| Some((ordinal, plan.unit(self.lane, ordinal)?)));
        let units: Vec<_> = units.collect();
        let mut starts = Vec::with_capacity(units.len());
        let mut num_documents = 0;
        for (ordinal, unit) in &units {
            starts.push(Start { ordinal: *ordinal, place: num_documents, row: unit.start });
            num_documents += unit.end - unit.start;
        }
        let from = position.row;
        let wanted = (from > 0).then(|| {
            let mut wanted = vec![Vec::new(); units.len()];
            for place in (from..num_documents).map(|index| permuted(index, num_documents, window.key)) {
                let at = starts.partition_point(|start| start.place <= place) - 1;
                wanted[at].push(Wanted { row: starts[at].row + place - starts[at].place, byte_offset: 0 });
            }
            wanted.iter_mut().for_each(|rows| rows.sort_unstable());
            wanted
        });
        let reads = units.iter().enumerate().filter_map(|(at, (ordinal, _))| {
            self.read_unit(plan, *ordinal, wanted.as_ref().map(|wanted| wanted[at].clone()))
        });
        let units = reads.collect();
        let order = Order::Permuted { first: window.first, key: window.key, from, num_documents, starts };
        Some((Segment { order, units }, Address { ordinal: window.end, row: 0, ..position }))
    }

    /// Gives the reader back once the rows are read.
    pub(crate) fn read(&mut self, step: Step) -> Ticket {
        let unit = &mut self.segments[(step.segment - self.front) as usize].units[step.unit];
        unit.finished = step.reader.is_finished();
        unit.reader = (!unit.finished).then_some(step.reader);
        Ticket { source: step.source, segment: step.segment, unit: step.unit, sequence: step.sequence }
    }

    /// Puts a finished piece into its place.
    pub(crate) fn deposit(&mut self, ticket: Ticket, piece: Piece) {
        self.in_flight -= 1;
        self.queued_bytes += piece.num_bytes.iter().sum::<u64>() as usize;
        self.queued_tokens += piece.tokens.num_tokens() + piece.rows.len();
        let unit = &mut self.segments[(ticket.segment - self.front) as usize].units[ticket.unit];
        unit.deposited += 1;
        unit.num_documents += piece.rows.len() as u64;
        if piece.rows.is_empty() {
            unit.num_empty += 1;
            self.num_empty += 1;
        }
        unit.pieces.push(ticket.sequence, piece);
    }

    /// Moves everything that is in order to the packing side.
    ///
    /// # Errors
    /// An epoch of the lane has ended without a document.
    pub(crate) fn deliver(&mut self, plan: &Plan, inbox: &mut Inbox) -> Result<()> {
        while let Some(segment) = self.segments.front_mut() {
            if let Order::Rows = segment.order {
                let unit = &mut segment.units[0];
                while let Some(piece) = unit.pieces.pop() {
                    inbox.push(piece);
                }
            }
            if !segment.is_complete() {
                return Ok(());
            }
            self.front += 1;
            if let Some(Segment { order, units }) = self.segments.pop_front() {
                self.num_empty -= units.iter().map(|unit| unit.num_empty).sum::<usize>();
                if !matches!(order, Order::Listed(_)) {
                    units.iter().try_for_each(|unit| self.refuse_empty_epoch(plan, unit))?;
                }
                inbox.gather(order, units);
            }
        }
        inbox.set_ended(self.opens.is_none_or(|position| plan.unit(self.lane, position.ordinal).is_none()));
        Ok(())
    }

    /// Without this a lane of which everything is left out would read for ever.
    fn refuse_empty_epoch(&mut self, plan: &Plan, unit: &UnitRead) -> Result<()> {
        if unit.num_documents > 0 || !unit.is_whole {
            self.empty_since = None;
            return Ok(());
        }
        let since = *self.empty_since.get_or_insert(unit.ordinal);
        match plan.epoch_of(self.lane, unit.ordinal) {
            Some(epoch) if since <= epoch.start && unit.ordinal + 1 == epoch.end => {
                Err(Error::EmptyEpoch { lane: self.lane, num_units: epoch.end - epoch.start })
            }
            _ => Ok(()),
        }
    }

    /// Tells what the packer took.
    pub(crate) fn taken(&mut self, taken: Taken) {
        self.queued_bytes -= taken.num_bytes;
        self.queued_tokens -= taken.num_tokens;
    }

    /// Tokens that are read and not yet taken, a BOS for each document included.
    pub(crate) fn queued_tokens(&self) -> usize {
        self.queued_tokens
    }

    /// Bytes of text that are read and not yet taken.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PlanConfig;
    use crate::ragged::TokenBatch;

    fn piece(ordinal: u64, num_bytes: u64) -> Piece {
        let mut tokens = TokenBatch::new();
        tokens.push(&[1]);
        Piece {
            source: 0,
            ordinal,
            group: 0,
            rows: vec![0],
            num_bytes: vec![num_bytes],
            tokens: Arc::new(tokens),
            left_out: vec![],
        }
    }

    #[test]
    fn the_front_is_read_on_however_much_of_later_units_is_held() {
        let config = PlanConfig { unit_documents: Some(0), ..PlanConfig::default() };
        let plan = Plan::new(&[vec![100, 1, 1]], &config).unwrap();
        let target = STEP_BYTES + 1;
        let mut feed = Feed::new(&plan, 0, Address::default(), &[]);
        let first = feed.next_step(&plan, target).unwrap();
        let second = feed.next_step(&plan, target).unwrap();
        assert_eq!((first.ordinal, second.ordinal), (0, 1));
        let ticket = feed.read(second);
        feed.deposit(ticket, piece(1, 10 * target as u64));
        assert!(feed.next_step(&plan, target).is_none(), "the front is being read");
        let ticket = feed.read(first);
        assert!(feed.next_step(&plan, target).is_none(), "a piece of the front is on its way");
        feed.deposit(ticket, piece(0, 1));
        assert!(feed.next_step(&plan, target).is_none(), "a piece of the front waits for the packer");
        feed.deliver(&plan, &mut Inbox::new(Address::default(), None)).unwrap();
        assert_eq!(feed.next_step(&plan, target).unwrap().ordinal, 0);
    }
}
