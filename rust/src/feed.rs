//! One lane's documents in order: what to read next, and the pieces as they finish.
//!
//! ```text
//! plan ──▶ Feed: segments of units ──▶ steps for any thread ──▶ tokenized pieces ──▶ Inbox: documents in order
//!          (under the pipeline's lock)  (outside the lock)      (under the lock)     (whoever packs the lane)
//! ```
//! A segment is what has to be complete before its documents can be ordered: one unit, delivered piece by piece; a
//! shuffle window; or the scattered documents that a restored packer holds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::admission::{Admission, PassedOver};
use crate::error::{Error, Result};
use crate::packing::{Document, Next};
use crate::piece::Piece;
use crate::plan::{Plan, Unit, permuted};
use crate::quarantine::Quarantine;
use crate::reorder::Reorder;
use crate::row_groups::UnitReader;
use crate::state::{Address, Waiting};

/// A piece of work: read the next rows of a unit, then tokenize them.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) source: u32,
    segment: u64,
    unit: usize,
    sequence: u64,
    /// Reads the rows; goes back to the feed before tokenizing, so that another thread can read on.
    pub(crate) reader: UnitReader,
    /// The unit, as an ordinal of the lane.
    pub(crate) ordinal: u64,
    /// See `Document::group`.
    pub(crate) group: u64,
    /// Rows that are needed, ascending; `None`: all.
    pub(crate) wanted: Option<Arc<Vec<Wanted>>>,
    /// Whether they are what a restored packer holds.
    pub(crate) is_restoring: bool,
    /// What the lane reads after the unit.
    pub(crate) then: Vec<Unit>,
}

/// A row that is needed, from byte `byte_offset` of its text on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wanted {
    pub(crate) row: u64,
    pub(crate) byte_offset: u64,
}

/// Where a finished piece belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(crate) source: u32,
    segment: u64,
    unit: usize,
    sequence: u64,
}

#[derive(Debug)]
struct UnitRead {
    ordinal: u64,
    group: u64,
    /// `None` while a thread reads with it, and once every row was read.
    reader: Option<UnitReader>,
    wanted: Option<Arc<Vec<Wanted>>>,
    finished: bool,
    /// Documents found in it.
    num_documents: u64,
    /// Pieces without a document, which take no memory that `queued_bytes` knows of.
    num_empty: usize,
    /// Whether it is read from its first row on, all of it.
    is_whole: bool,
    /// Steps given out …
    issued: u64,
    /// … and come back as pieces.
    deposited: u64,
    pieces: Reorder<Piece>,
}

#[derive(Debug)]
enum Order {
    /// Piece by piece as the unit is read.
    Rows,
    /// All documents of the window, permuted; those before `from` are done.
    Permuted { first: u64, key: u64, from: u64, num_documents: u64, starts: Vec<Start> },
    /// The documents that a restored packer holds.
    Listed(Vec<Waiting>),
}

/// Where a unit of a window begins.
#[derive(Clone, Copy, Debug)]
struct Start {
    ordinal: u64,
    /// Documents of the window before it.
    place: u64,
    /// Its first row.
    row: u64,
}

#[derive(Debug)]
struct Segment {
    order: Order,
    units: Vec<UnitRead>,
}

impl Segment {
    fn is_complete(&self) -> bool {
        self.units.iter().all(|unit| unit.finished && unit.deposited == unit.issued)
    }

    /// Whether the packer waits for what nobody reads yet.
    fn must_go_on(&self) -> bool {
        match self.order {
            Order::Rows => {
                self.units.iter().all(|unit| unit.issued == unit.deposited && unit.pieces.is_empty())
            }
            Order::Permuted { .. } | Order::Listed(_) => true,
        }
    }
}

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
            let segment = self.front + index as u64;
            let is_restoring = matches!(self.segments[index].order, Order::Listed(_));
            for (unit, read) in self.segments[index].units.iter_mut().enumerate() {
                if let Some(reader) = read.reader.take() {
                    let sequence = read.issued;
                    read.issued += 1;
                    self.in_flight += 1;
                    let (ordinal, group, wanted) = (read.ordinal, read.group, read.wanted.clone());
                    let source = self.source;
                    return Some(Step {
                        source,
                        segment,
                        unit,
                        sequence,
                        reader,
                        ordinal,
                        group,
                        wanted,
                        is_restoring,
                        then: self.units_behind(plan, index, unit),
                    });
                }
            }
            index += 1;
        }
    }

    /// The units that come after one: those of open segments that nobody has begun, then those of the plan.
    fn units_behind(&self, plan: &Plan, segment: usize, unit: usize) -> Vec<Unit> {
        let open = self.segments.iter().enumerate().skip(segment);
        let open = open
            .flat_map(|(index, open)| open.units.iter().skip(if index == segment { unit + 1 } else { 0 }));
        let open = open.filter(|read| read.issued == 0).filter_map(|read| read.reader.as_ref());
        let first = self.opens.map_or(u64::MAX, |position| position.ordinal);
        let planned = first..first.saturating_add(UNITS_BEHIND as u64);
        let planned = planned.filter_map(|ordinal| plan.unit(self.lane, ordinal));
        open.map(UnitReader::unit).chain(planned).take(UNITS_BEHIND).collect()
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
                    inbox.batches.push_back(Batch::Rows { piece, next: 0, next_left_out: 0 });
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
        inbox.ended = self.opens.is_none_or(|position| plan.unit(self.lane, position.ordinal).is_none());
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

/// What the packer took from its inbox.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    num_bytes: usize,
    /// A BOS for each document included.
    num_tokens: usize,
}

impl Taken {
    fn add(&mut self, document: &Document) {
        self.num_bytes += document.num_bytes as usize;
        self.num_tokens += document.tokens().len() + 1;
    }
}

#[derive(Debug)]
enum Batch {
    Rows {
        piece: Piece,
        /// The next document …
        next: usize,
        /// … and the next of what is left out.
        next_left_out: usize,
    },
    Permuted {
        pieces: Vec<Piece>,
        order: VecDeque<Place>,
        position: Address,
    },
}

/// What lies at a place of a window: a piece, and what of it.
#[derive(Clone, Copy, Debug)]
enum Place {
    Document(u32, u32),
    LeftOut(u32, u32),
    Nothing,
}

/// The packing side of one source of a lane: documents in order.
#[derive(Debug)]
pub(crate) struct Inbox {
    batches: VecDeque<Batch>,
    restored: Option<Vec<Document>>,
    ended: bool,
    position: Address,
    taken: Taken,
    /// Documents that the packer does not get to see; none: it sees all.
    admission: Option<Admission>,
    passed_over: Vec<(Address, PassedOver)>,
    /// Documents passed over since the last one that was not.
    num_passed_over: u64,
}

impl Inbox {
    pub(crate) fn new(position: Address, admission: Option<Admission>) -> Self {
        Self {
            batches: VecDeque::new(),
            restored: None,
            ended: false,
            position,
            taken: Taken::default(),
            admission,
            passed_over: Vec::new(),
            num_passed_over: 0,
        }
    }

    /// What was passed over since the last call.
    pub(crate) fn take_passed_over(&mut self) -> Vec<(Address, PassedOver)> {
        std::mem::take(&mut self.passed_over)
    }

    /// Documents passed over one after the other, up to now.
    pub(crate) fn num_passed_over(&self) -> u64 {
        self.num_passed_over
    }

    fn gather(&mut self, order: Order, mut units: Vec<UnitRead>) {
        match order {
            Order::Rows => {}
            Order::Listed(waiting) => {
                let mut documents = BTreeMap::new();
                for piece in pieces_of(&mut units) {
                    for index in 0..piece.rows.len() {
                        let document = piece.document(index);
                        self.taken.add(&document);
                        documents.insert(document.address, document);
                    }
                }
                let documents = waiting.iter().filter_map(|waiting| documents.get(&waiting.address).cloned());
                self.restored = Some(documents.collect());
            }
            Order::Permuted { first, key, from, num_documents, starts } => {
                let pieces = pieces_of(&mut units);
                let mut places = vec![Place::Nothing; num_documents as usize];
                for (at, piece) in pieces.iter().enumerate() {
                    let start = starts[starts.partition_point(|start| start.ordinal < piece.ordinal)];
                    let place = |row: u64| (start.place + row - start.row) as usize;
                    for (index, row) in piece.rows.iter().enumerate() {
                        places[place(*row)] = Place::Document(at as u32, index as u32);
                    }
                    for (index, part) in piece.left_out.iter().enumerate() {
                        places[place(part.start)..place(part.end)]
                            .fill(Place::LeftOut(at as u32, index as u32));
                    }
                }
                let order =
                    (from..num_documents).map(|index| places[permuted(index, num_documents, key) as usize]);
                let order = order.collect();
                let position = Address { ordinal: first, row: from, ..self.position };
                self.batches.push_back(Batch::Permuted { pieces, order, position });
            }
        }
    }

    /// The documents that a restored packer holds, once they are all read.
    pub(crate) fn take_restored(&mut self) -> Option<Vec<Document>> {
        self.restored.take()
    }

    /// The next document; what is left out before it goes to `quarantine`.
    pub(crate) fn next(&mut self, quarantine: &mut Quarantine) -> Next {
        loop {
            let document = match self.batches.front_mut() {
                None => return if self.ended { Next::End } else { Next::Pending },
                Some(Batch::Rows { piece, next, next_left_out }) => {
                    let row = piece.rows.get(*next).copied();
                    // What is left out is noted when the lane comes to it.
                    while let Some(part) = piece.left_out.get(*next_left_out)
                        && row.is_none_or(|row| part.start < row)
                    {
                        quarantine.add(part);
                        *next_left_out += 1;
                    }
                    row.map(|row| {
                        let document = piece.document(*next);
                        *next += 1;
                        self.position = Address { row: row + 1, ..document.address };
                        document
                    })
                }
                Some(Batch::Permuted { pieces, order, position }) => {
                    let mut found = None;
                    while found.is_none()
                        && let Some(place) = order.pop_front()
                    {
                        position.row += 1;
                        match place {
                            Place::Document(piece, index) => {
                                self.position = *position;
                                found = Some(pieces[piece as usize].document(index as usize));
                            }
                            Place::LeftOut(piece, index) => {
                                quarantine.add(&pieces[piece as usize].left_out[index as usize]);
                            }
                            Place::Nothing => {}
                        }
                    }
                    found
                }
            };
            match document {
                Some(document) => {
                    self.taken.add(&document);
                    let passed_over = self.admission.and_then(|rule| rule.passes_over(&document));
                    let Some(reason) = passed_over else {
                        self.num_passed_over = 0;
                        return Next::Document(document);
                    };
                    self.num_passed_over += 1;
                    self.passed_over.push((document.address, reason));
                }
                None => drop(self.batches.pop_front()),
            }
        }
    }

    /// The next document to admit.
    pub(crate) fn position(&self) -> Address {
        self.position
    }

    /// What was taken since the last call.
    pub(crate) fn take_taken(&mut self) -> Taken {
        std::mem::take(&mut self.taken)
    }
}

fn pieces_of(units: &mut [UnitRead]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for unit in units {
        while let Some(piece) = unit.pieces.pop() {
            pieces.push(piece);
        }
    }
    pieces
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
