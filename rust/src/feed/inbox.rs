//! The packing side of one source of a lane: documents in order.

use std::collections::{BTreeMap, VecDeque};

use super::segment::{Order, UnitRead, pieces_of};
use crate::admission::{Admission, PassedOver};
use crate::packing::{Document, Next};
use crate::piece::Piece;
use crate::plan::permuted;
use crate::quarantine::Quarantine;
use crate::state::Address;

/// What the packer took from its inbox.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    pub(super) num_bytes: usize,
    /// A BOS for each document included.
    pub(super) num_tokens: usize,
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
    /// Whether no more will be delivered.
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

    /// Takes a segment that is complete.
    pub(super) fn gather(&mut self, order: Order, mut units: Vec<UnitRead>) {
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

    /// Takes the next piece of a unit.
    pub(super) fn push(&mut self, piece: Piece) {
        self.batches.push_back(Batch::Rows { piece, next: 0, next_left_out: 0 });
    }

    /// Tells whether there will be no more.
    pub(super) fn set_ended(&mut self, ended: bool) {
        self.ended = ended;
    }

    /// Lets go of everything behind its position; it will be delivered again.
    pub(crate) fn rewind(&mut self) {
        self.batches.clear();
        (self.restored, self.ended, self.taken) = (None, false, Taken::default());
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
