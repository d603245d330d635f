//! A giant's parts, which any thread may encode ahead of the one that puts them together.
//!
//! ```text
//! parts     [0][1][2][3][4][5][6] ...        the owner appends them in order, and while the next one is with a helper
//!           own h1  h2  own  -  -            it encodes another; `MOST_AHEAD` are taken before they are appended
//! ```
//! Helpers are welcome and never needed: what none took the owner encodes, and what one lost (it was refused memory, or
//! went down) the owner encodes again. Whoever took a part says what became of it, so the owner never waits for nobody.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::account::{Account, Charge};
use crate::ragged::DocumentBatch;
use crate::sync::{Bell, lock};
use crate::tokenizer::Encoder;

/// Parts that are taken or done and not yet appended: two for each of 8 threads.
const MOST_AHEAD: usize = 16;

/// The parts of one giant.
#[derive(Debug)]
pub(crate) struct Parts {
    documents: DocumentBatch,
    document: usize,
    /// Where each ends.
    ends: Vec<usize>,
    account: Option<Arc<Account>>,
    progress: Mutex<Progress>,
    /// A part that somebody took has come back.
    came_back: Bell,
}

#[derive(Debug, Default)]
struct Progress {
    /// The first part that nobody took.
    next: usize,
    /// Parts that are appended.
    appended: usize,
    /// What helpers made of others; `None`: nothing.
    done: BTreeMap<usize, Option<Ahead>>,
}

/// The tokens of a part, and what is charged for them.
type Ahead = (Vec<u32>, Option<Charge>);

/// What comes next …
pub(super) enum Next {
    /// … is to be encoded,
    Encode(Range<usize>),
    /// … or was encoded ahead.
    Append(Range<usize>, Vec<u32>, Option<Charge>),
}

impl Parts {
    /// The parts of a document that end at `ends`; what helpers make of them is charged to `account`.
    pub(super) fn new(
        documents: &DocumentBatch,
        document: usize,
        ends: Vec<usize>,
        account: Option<Arc<Account>>,
    ) -> Self {
        let (progress, came_back) = (Mutex::default(), Bell::default());
        Self { documents: documents.clone(), document, ends, account, progress, came_back }
    }

    fn range(&self, part: usize) -> Range<usize> {
        part.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[part]
    }

    fn text(&self) -> &[u8] {
        self.documents.document(self.document)
    }

    /// Whether there is a part for a helper.
    pub(crate) fn wants_help(&self) -> bool {
        self.is_wanted(&lock(&self.progress))
    }

    /// Whether every part is taken.
    pub(crate) fn is_over(&self) -> bool {
        lock(&self.progress).next == self.ends.len()
    }

    /// Parts that were encoded ahead and are not yet appended.
    #[cfg(test)]
    pub(super) fn num_ahead(&self) -> usize {
        lock(&self.progress).done.values().flatten().count()
    }

    fn is_wanted(&self, progress: &Progress) -> bool {
        progress.next < self.ends.len().min(progress.appended + MOST_AHEAD)
    }

    /// Encodes one part ahead, where one is wanted and there is memory for it.
    pub(crate) fn help(&self, encoder: &mut Encoder) {
        let mut progress = lock(&self.progress);
        if !self.is_wanted(&progress) {
            return;
        }
        let part = progress.next;
        progress.next += 1;
        drop(progress);
        let mut taken = Taken { parts: self, part, ahead: None };
        let text = &self.text()[self.range(part)];
        // A token a byte.
        let most = text.len() * size_of::<u32>();
        let Ok(mut charge) = self.account.as_ref().map(|account| account.charge(most)).transpose() else {
            return;
        };
        let mut tokens = Vec::new();
        if encoder.encode(text, &mut tokens).is_ok() && !encoder.was_stopped() {
            tokens.shrink_to_fit();
            if let Some(charge) = &mut charge {
                charge.lower(tokens.capacity() * size_of::<u32>());
            }
            taken.ahead = Some((tokens, charge));
        }
    }

    /// The part behind those that were appended, once whoever took it has brought it back; `None` behind the last one.
    pub(super) fn next(&self, encoder: &mut Encoder) -> Option<Next> {
        let mut progress = lock(&self.progress);
        let part = progress.appended;
        if part == self.ends.len() {
            return None;
        }
        let range = self.range(part);
        if part == progress.next {
            progress.next += 1;
            return Some(Next::Encode(range));
        }
        loop {
            match progress.done.remove(&part) {
                Some(Some((tokens, charge))) => return Some(Next::Append(range, tokens, charge)),
                Some(None) => return Some(Next::Encode(range)),
                None if self.is_wanted(&progress) => {
                    drop(progress);
                    self.help(encoder);
                    progress = lock(&self.progress);
                }
                None => progress = self.came_back.wait(progress),
            }
        }
    }

    /// Tells that the part is appended that came next.
    pub(super) fn appended(&self) {
        lock(&self.progress).appended += 1;
    }

    /// Takes all parts that nobody took: there is no more to do.
    pub(super) fn withdraw(&self) {
        let mut progress = lock(&self.progress);
        progress.next = self.ends.len();
        progress.done.clear();
    }
}

/// A part that a helper took: it comes back whatever becomes of the helper.
struct Taken<'a> {
    parts: &'a Parts,
    part: usize,
    ahead: Option<Ahead>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut progress = lock(&self.parts.progress);
        progress.done.insert(self.part, self.ahead.take());
        drop(progress);
        self.parts.came_back.ring_all();
    }
}
