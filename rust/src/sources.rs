//! A lane's sources: on the reading side a feed each, on the packing side an inbox each and the rule which one is next.
//!
//! ```text
//! plans ──▶ Feeds: the source that is least far ahead for its weight is read first
//!             └─▶ Inboxes: Mixture says whose turn it is ──▶ that inbox's next document ──▶ packer
//! ```
//! Without a mixture there is one source, and its documents come as they are. Whose turn it is does not depend on what has
//! been read: when that source has nothing yet, the lane waits for it.

use crate::admission::{Admission, PassedOver};
use crate::config::{MixtureConfig, RunOut};
use crate::error::Result;
use crate::feed::{Feed, Inbox, Step, Ticket};
use crate::mixture::Mixture;
use crate::packing::{Document, Next};
use crate::piece::Piece;
use crate::plan::{Plan, Unit};
use crate::quarantine::Quarantine;
use crate::state::{Address, LaneEntry, SourceEntry, Waiting};

/// The reading side.
#[derive(Debug)]
pub(crate) struct Feeds {
    feeds: Vec<Feed>,
    /// Shares of the sources, 1 in all.
    shares: Vec<f64>,
}

impl Feeds {
    /// The feeds of a lane that stands at `entry`.
    pub(crate) fn new(
        plans: &[Plan],
        mixture: Option<&MixtureConfig>,
        lane: usize,
        entry: &LaneEntry,
    ) -> Self {
        let weights = mixture.map_or_else(|| vec![1.0], |mixture| mixture.weights.clone());
        let whole: f64 = weights.iter().sum();
        Self {
            feeds: feeds(plans, lane, entry),
            shares: weights.into_iter().map(|weight| weight / whole).collect(),
        }
    }

    /// The next thing to read, where reading further ahead than `target_bytes` over all sources is not needed for it.
    pub(crate) fn next_step(&mut self, plans: &[Plan], target_bytes: usize) -> Option<Step> {
        let mut order: Vec<usize> = (0..self.feeds.len()).collect();
        let ahead = |source: &usize| self.feeds[*source].queued_tokens() as f64 / self.shares[*source];
        order.sort_by(|one, other| ahead(one).total_cmp(&ahead(other)));
        order.into_iter().find_map(|source| {
            let target_bytes = (target_bytes as f64 * self.shares[source]) as usize;
            self.feeds[source].next_step(&plans[source], target_bytes)
        })
    }

    /// The next thing to read of what the packer waits for from `source`.
    pub(crate) fn front_step(&mut self, plans: &[Plan], source: usize) -> Option<Step> {
        self.feeds[source].front_step(&plans[source])
    }

    /// The units that its source reads after that of a step.
    pub(crate) fn units_behind(&self, plans: &[Plan], step: &Step) -> Vec<Unit> {
        let source = step.source as usize;
        self.feeds[source].units_behind(&plans[source], step)
    }

    /// Takes back a step that read nothing.
    pub(crate) fn unread(&mut self, step: Step) {
        self.feeds[step.source as usize].unread(step);
    }

    /// Tells that no piece comes of a step whose rows were read.
    pub(crate) fn abandon(&mut self, ticket: Ticket) {
        self.feeds[ticket.source as usize].abandon();
    }

    /// Steps that are given out and not come back.
    pub(crate) fn in_flight(&self) -> usize {
        self.feeds.iter().map(Feed::in_flight).sum()
    }

    /// Whether it holds anything that can be read again.
    pub(crate) fn holds_memory(&self) -> bool {
        self.feeds.iter().any(Feed::holds_memory)
    }

    /// Lets go of the pages that no thread reads; whether there were any.
    pub(crate) fn close_readers(&mut self) -> bool {
        self.feeds.iter_mut().fold(false, |any, feed| feed.close_readers() | any)
    }

    /// Begins anew where `entry` says, and lets go of everything.
    ///
    /// # Panics
    /// When a step has not come back.
    pub(crate) fn rewind(&mut self, plans: &[Plan], lane: usize, entry: &LaneEntry) {
        assert_eq!(self.in_flight(), 0, "a step would come back to another feed");
        self.feeds = feeds(plans, lane, entry);
    }

    /// Gives the reader back once the rows are read.
    pub(crate) fn read(&mut self, step: Step) -> Ticket {
        self.feeds[step.source as usize].read(step)
    }

    /// Puts a finished piece into its place.
    pub(crate) fn deposit(&mut self, ticket: Ticket, piece: Piece) {
        self.feeds[ticket.source as usize].deposit(ticket, piece);
    }

    /// Moves everything that is in order to the packing side.
    ///
    /// # Errors
    /// An epoch of a source has ended without a document for this lane.
    pub(crate) fn deliver(&mut self, plans: &[Plan], inboxes: &mut Inboxes) -> Result<()> {
        let mut parts = self.feeds.iter_mut().zip(plans).zip(&mut inboxes.inboxes);
        parts.try_for_each(|((feed, plan), inbox)| feed.deliver(plan, inbox))
    }

    /// Tells what the packer took.
    pub(crate) fn taken(&mut self, inboxes: &mut Inboxes) {
        for (feed, inbox) in self.feeds.iter_mut().zip(&mut inboxes.inboxes) {
            feed.taken(inbox.take_taken());
        }
    }

    /// Tokens that are read and not yet taken, a BOS for each document included.
    pub(crate) fn queued_tokens(&self) -> usize {
        self.feeds.iter().map(Feed::queued_tokens).sum()
    }

    /// Bytes of text that are read and not yet taken.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.feeds.iter().map(Feed::queued_bytes).sum()
    }
}

fn feeds(plans: &[Plan], lane: usize, entry: &LaneEntry) -> Vec<Feed> {
    let feed = |(source, plan)| {
        let of_source = |waiting: &&Waiting| waiting.address.source == source;
        let waiting: Vec<_> = entry.packer.waiting.iter().filter(of_source).copied().collect();
        Feed::new(plan, lane, entry.sources[source as usize].position, &waiting)
    };
    (0..).zip(plans).map(feed).collect()
}

/// The packing side.
#[derive(Debug)]
pub(crate) struct Inboxes {
    inboxes: Vec<Inbox>,
    shares: Option<Shares>,
    /// What was left out up to the position.
    quarantine: Quarantine,
    /// The documents that a restored packer holds, by source, once they are all read.
    restored: Vec<Option<Vec<Document>>>,
    /// The source whose next document was asked for last and was not there.
    awaited: usize,
}

/// What a mixture keeps.
#[derive(Debug)]
struct Shares {
    rule: Mixture,
    run_out: RunOut,
    /// Tokens of the BOS that the packer adds to each document.
    added: u64,
    /// Tokens admitted from each source since the data began, BOS included.
    read: Vec<u64>,
}

impl Inboxes {
    /// The packing side of a lane that stands at `entry`; documents are passed over by `admission`, and are counted with
    /// `added` tokens more than they bring.
    pub(crate) fn new(
        mixture: Option<&MixtureConfig>,
        admission: Option<Admission>,
        added: u64,
        entry: &LaneEntry,
    ) -> Self {
        let shares = |mixture: &MixtureConfig| Shares {
            rule: Mixture::new(
                mixture
                    .weights
                    .iter()
                    .zip(&entry.sources)
                    .map(|(&weight, source)| (weight, source.admitted, source.has_run_out)),
            ),
            run_out: mixture.run_out,
            added,
            read: entry.sources.iter().map(|source| source.read).collect(),
        };
        Self {
            inboxes: entry.sources.iter().map(|source| Inbox::new(source.position, admission)).collect(),
            shares: mixture.map(shares),
            quarantine: entry.quarantine.clone(),
            restored: vec![None; entry.sources.len()],
            awaited: 0,
        }
    }

    /// The source whose documents the packer waits for.
    pub(crate) fn awaited(&self) -> usize {
        self.awaited
    }

    /// Lets go of every document that was not taken; they will be delivered again.
    pub(crate) fn rewind(&mut self) {
        self.inboxes.iter_mut().for_each(Inbox::rewind);
        self.restored.fill(None);
    }

    /// Whether there are shares to be kept.
    pub(crate) fn is_mixture(&self) -> bool {
        self.shares.is_some()
    }

    /// The next document.
    pub(crate) fn next(&mut self) -> Next {
        let Some(shares) = &mut self.shares else { return self.inboxes[0].next(&mut self.quarantine) };
        while let Some(source) = shares.rule.next() {
            match (self.inboxes[source].next(&mut self.quarantine), shares.run_out) {
                (Next::Document(document), _) => {
                    let num_tokens = document.tokens().len() as u64 + shares.added;
                    shares.rule.admit(source, num_tokens);
                    shares.read[source] += num_tokens;
                    return Next::Document(document);
                }
                (Next::Pending, _) => {
                    self.awaited = source;
                    return Next::Pending;
                }
                (Next::End, RunOut::Drop) => shares.rule.drop_out(source),
                (Next::End, RunOut::Repeat | RunOut::Stop) => return Next::End,
            }
        }
        Next::End
    }

    /// The documents that a restored packer holds, in the order of `waiting`, once they are all read.
    pub(crate) fn take_restored(&mut self, waiting: &[Waiting]) -> Option<Vec<Document>> {
        for (restored, inbox) in self.restored.iter_mut().zip(&mut self.inboxes) {
            *restored = restored.take().or_else(|| inbox.take_restored());
        }
        let is_missing = |waiting: &&Waiting| self.restored[waiting.address.source as usize].is_none();
        if let Some(missing) = waiting.iter().find(is_missing) {
            self.awaited = missing.address.source as usize;
            return None;
        }
        let mut queues: Vec<_> =
            self.restored.iter_mut().map(|restored| restored.take().into_iter().flatten()).collect();
        Some(waiting.iter().filter_map(|waiting| queues[waiting.address.source as usize].next()).collect())
    }

    /// Where each source stands; `trained` is what the packer delivered of each.
    pub(crate) fn sources(&self, trained: &[u64]) -> Vec<SourceEntry> {
        let entry = |(source, inbox): (usize, &Inbox)| {
            let position = inbox.position();
            let Some(shares) = &self.shares else {
                return SourceEntry { position, ..SourceEntry::default() };
            };
            let (admitted, has_run_out) = shares.rule.source(source);
            SourceEntry {
                position,
                admitted,
                has_run_out,
                read: shares.read[source],
                trained: trained[source],
            }
        };
        self.inboxes.iter().enumerate().map(entry).collect()
    }

    /// What was passed over since the last call.
    pub(crate) fn take_passed_over(&mut self) -> Vec<(Address, PassedOver)> {
        self.inboxes.iter_mut().flat_map(Inbox::take_passed_over).collect()
    }

    /// The number of documents passed over one after the other, where that is more than an epoch of their source has.
    pub(crate) fn passed_over_all(&self, plans: &[Plan]) -> Option<u64> {
        let passed_over = self.inboxes.iter().map(Inbox::num_passed_over).zip(plans);
        passed_over.filter(|(count, plan)| *count > plan.num_documents()).map(|(count, _)| count).next()
    }

    /// What was left out up to the position.
    pub(crate) fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }
}
