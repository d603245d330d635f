//! A few thousand pretokens at once, from several documents: keys first, then look-ups, then the ones that were not found.
//!
//! ```text
//! starts    0 3 7 9 | 0 5 ...      of each segment (a stretch of one document), with its end
//! keys      k k k . | k ...        computed as text is split; the table's line is fetched meanwhile
//! out       id id 0 id ...         0 holds the place of a pretoken that is not in the short cache
//! ```
//! Places are filled when all look-ups are done, so that unknown words can be merged together.

use super::Tables;
use super::bpe::heap::HeapMerger;
use super::cache::{Caches, Key, ShortCache, write_keys};
use super::misses::{Misses, Word};
use super::probe::{self, Miss};

/// Pretokens of a chunk. From 1,024 to 4,096 are equally fast; 64 lose a fifth (the line's fetch is not over when it is
/// needed).
pub(super) const CAPACITY: usize = 4096;

/// Free starts that a window needs.
const WINDOW: usize = 64;

/// A stretch of one document.
#[derive(Clone, Copy, Debug)]
struct Segment {
    document: usize,
    /// Where it begins in the document.
    offset: usize,
    /// Its first start, key and home.
    first: usize,
    /// Pretokens.
    count: usize,
    ends_document: bool,
}

#[derive(Debug)]
pub(super) struct Chunk {
    starts: Box<[u32]>,
    keys: Box<[Key]>,
    homes: Box<[u32]>,
    used: usize,
    num_bytes: usize,
    segments: Vec<Segment>,
    places: Vec<Miss>,
    misses: Misses,
    ends: Vec<usize>,
    counts: LookUps,
}

/// How often the caches knew a pretoken.
#[derive(Clone, Copy, Debug, Default)]
pub struct LookUps {
    /// Pretokens looked up.
    pub pretokens: u64,
    /// Those that had to be merged.
    pub merged: u64,
}

impl Chunk {
    /// An empty chunk. `knows_tokens`: the caches hold every token that is taken whole.
    pub(super) fn new(knows_tokens: bool) -> Self {
        let length = CAPACITY + WINDOW + probe::AHEAD;
        Self {
            starts: vec![0; length].into(),
            keys: vec![0; length].into(),
            homes: vec![0; length].into(),
            used: 0,
            num_bytes: 0,
            segments: Vec::new(),
            places: Vec::new(),
            misses: Misses::new(knows_tokens),
            ends: Vec::new(),
            counts: LookUps::default(),
        }
    }

    /// What was counted since the last call.
    pub(super) fn take_counts(&mut self) -> LookUps {
        let merged = self.misses.take_num_merged();
        LookUps { merged, ..std::mem::take(&mut self.counts) }
    }

    pub(super) fn heap(&self) -> &HeapMerger {
        self.misses.heap()
    }

    pub(super) fn heap_mut(&mut self) -> &mut HeapMerger {
        self.misses.heap_mut()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Room for the starts of another segment; none when the chunk is full and wants `finish`.
    pub(super) fn room(&mut self) -> Option<&mut [u32]> {
        let room = &mut self.starts[self.used..CAPACITY + WINDOW];
        (room.len() > WINDOW).then(|| {
            // The last is for the segment's end.
            let last = room.len() - 1;
            &mut room[..last]
        })
    }

    /// Takes the segment `offset..end` of a document, whose `count` starts have been written to `room`; `memory` is the text
    /// with what lies behind it.
    #[expect(clippy::too_many_arguments, reason = "a segment and where it lies")]
    pub(super) fn push(
        &mut self,
        cache: &ShortCache,
        document: usize,
        text: &[u8],
        memory: &[u8],
        offset: usize,
        end: usize,
        count: usize,
    ) {
        let first = self.used;
        self.starts[first + count] = (end - offset) as u32;
        let starts = &self.starts[first..=first + count];
        write_keys(cache, &memory[offset..], starts, &mut self.keys[first..], &mut self.homes[first..]);
        self.segments.push(Segment { document, offset, first, count, ends_document: end == text.len() });
        self.used += count + 1;
        self.num_bytes += end - offset;
    }

    /// Notes that an empty document ends here.
    pub(super) fn push_empty(&mut self, document: usize) {
        let first = self.used;
        self.segments.push(Segment { document, offset: 0, first, count: 0, ends_document: true });
    }

    /// Appends the ids of everything pushed, tells `end` where each document ends in `out`, and empties the chunk.
    pub(super) fn finish<'a>(
        &mut self,
        tables: &Tables,
        caches: &mut Caches,
        text_of: &impl Fn(usize) -> &'a [u8],
        out: &mut Vec<u32>,
        end: &mut impl FnMut(usize),
    ) {
        let base = out.len();
        self.ends.clear();
        self.places.clear();
        let mut probe = probe::Probe::new(caches.short.entries(), out, self.num_bytes, &mut self.places);
        for segment in &self.segments {
            let range = segment.first..segment.first + segment.count;
            let ahead = segment.first..segment.first + segment.count + probe::AHEAD;
            probe.run(&self.keys[range], &self.homes[ahead], segment.first as u32);
            if segment.ends_document {
                self.ends.push(base + probe.len());
            }
        }
        probe.finish();
        if !self.places.is_empty() {
            self.locate_misses();
            self.misses.resolve(tables, caches, text_of);
            self.fill_places(base, out);
        }
        self.ends.iter().for_each(|&at| end(at));
        self.counts.pretokens += self.segments.iter().map(|segment| segment.count as u64).sum::<u64>();
        self.segments.clear();
        self.used = 0;
        self.num_bytes = 0;
    }

    /// Tells where the misses are in their documents.
    fn locate_misses(&mut self) {
        self.misses.clear();
        let mut segments = self.segments.iter();
        let mut segment = segments.next();
        for miss in &self.places {
            let index = miss.index as usize;
            while segment.is_some_and(|it| index >= it.first + it.count) {
                segment = segments.next();
            }
            let segment = segment.expect("a miss lies in a segment");
            let start = segment.offset + self.starts[index] as usize;
            let end = segment.offset + self.starts[index + 1] as usize;
            let (key, home) = (self.keys[index], self.homes[index]);
            self.misses.push(Word { document: segment.document, start, end, hash: 0, key, home });
        }
    }

    /// Puts the ids of the misses into their places, from the last to the first, moving what lies between.
    fn fill_places(&mut self, base: usize, out: &mut Vec<u32>) {
        let (mut from, extra) = (out.len(), self.misses.num_ids() - self.places.len());
        out.resize(from + extra, 0);
        let mut to = out.len();
        let mut ends = self.ends.iter_mut().rev().peekable();
        for (at, miss) in self.places.iter().enumerate().rev() {
            let place = base + miss.place as usize;
            while let Some(end) = ends.next_if(|end| **end > place) {
                *end += to - from;
            }
            let between = place + 1..from;
            to -= between.len();
            out.copy_within(between, to);
            let ids = self.misses.ids(at);
            to -= ids.len();
            out[to..to + ids.len()].copy_from_slice(ids);
            from = place;
        }
    }
}
