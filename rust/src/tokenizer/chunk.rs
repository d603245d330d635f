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
use super::bpe::small::{self, Group};
use super::cache::{Key, LongCache, ShortCache, write_keys};
use super::probe;

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

/// A pretoken that was not in the short cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Miss {
    /// Its place in the output, counted from the chunk's first.
    pub(super) place: u32,
    /// Its index among starts, keys and homes.
    pub(super) index: u32,
}

#[derive(Debug)]
pub(super) struct Chunk {
    starts: Box<[u32]>,
    keys: Box<[Key]>,
    homes: Box<[u32]>,
    knows_tokens: bool,
    used: usize,
    num_bytes: usize,
    segments: Vec<Segment>,
    misses: Vec<Miss>,
    /// Of each miss, where its ids are in `pool`.
    found: Vec<(u32, u32)>,
    pool: Vec<u32>,
    ends: Vec<usize>,
    words: Vec<Word>,
    group: Group,
    /// The words in `group`.
    waiting: Vec<u32>,
    heap: HeapMerger,
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

/// A miss in its document.
#[derive(Clone, Copy, Debug)]
struct Word {
    document: usize,
    start: usize,
    end: usize,
    hash: u64,
    key: Key,
    home: u32,
}

impl Chunk {
    /// An empty chunk. `knows_tokens`: the caches hold every token that is taken whole.
    pub(super) fn new(knows_tokens: bool) -> Self {
        let length = CAPACITY + WINDOW + probe::AHEAD;
        Self {
            starts: vec![0; length].into(),
            keys: vec![0; length].into(),
            homes: vec![0; length].into(),
            knows_tokens,
            used: 0,
            num_bytes: 0,
            segments: Vec::new(),
            misses: Vec::new(),
            found: Vec::new(),
            pool: Vec::new(),
            ends: Vec::new(),
            words: Vec::new(),
            group: Group::default(),
            waiting: Vec::new(),
            heap: HeapMerger::default(),
            counts: LookUps::default(),
        }
    }

    /// What was counted since the last call.
    pub(super) fn take_counts(&mut self) -> LookUps {
        std::mem::take(&mut self.counts)
    }

    pub(super) fn heap_mut(&mut self) -> &mut HeapMerger {
        &mut self.heap
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

    /// Takes the segment `offset..end` of a document, whose `count` starts have been written to `room`.
    pub(super) fn push(
        &mut self,
        cache: &ShortCache,
        document: usize,
        text: &[u8],
        offset: usize,
        end: usize,
        count: usize,
    ) {
        let first = self.used;
        self.starts[first + count] = (end - offset) as u32;
        let starts = &self.starts[first..=first + count];
        write_keys(cache, &text[offset..], starts, &mut self.keys[first..], &mut self.homes[first..]);
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
        caches: (&mut ShortCache, &mut LongCache),
        text_of: &impl Fn(usize) -> &'a [u8],
        out: &mut Vec<u32>,
        end: &mut impl FnMut(usize),
    ) {
        let (short, long) = caches;
        let base = out.len();
        self.ends.clear();
        self.misses.clear();
        let mut probe = probe::Probe::new(short.entries(), out, self.num_bytes, &mut self.misses);
        for segment in &self.segments {
            let range = segment.first..segment.first + segment.count;
            let ahead = segment.first..segment.first + segment.count + probe::AHEAD;
            probe.run(&self.keys[range], &self.homes[ahead], segment.first as u32);
            if segment.ends_document {
                self.ends.push(base + probe.len());
            }
        }
        probe.finish();
        if !self.misses.is_empty() {
            self.resolve(tables, short, long, text_of);
            self.fill_places(base, out);
        }
        self.ends.iter().for_each(|&at| end(at));
        self.counts.pretokens += self.segments.iter().map(|segment| segment.count as u64).sum::<u64>();
        self.segments.clear();
        self.used = 0;
        self.num_bytes = 0;
    }

    /// Finds the ids of all misses.
    fn resolve<'a>(
        &mut self,
        tables: &Tables,
        short: &mut ShortCache,
        long: &mut LongCache,
        text_of: &impl Fn(usize) -> &'a [u8],
    ) {
        self.pool.clear();
        self.found.clear();
        self.found.resize(self.misses.len(), (0, 0));
        self.locate(text_of);
        // Each pass fetches what the next one reads.
        self.words.iter().for_each(|word| long.fetch(word.hash));
        self.words.iter().for_each(|word| long.fetch_arena(word.hash));
        for at in 0..self.words.len() {
            let word = self.words[at];
            let pretoken = &text_of(word.document)[word.start..word.end];
            let from = self.pool.len();
            if !long.find_hashed(word.hash, pretoken, &mut self.pool) {
                // An earlier miss of this chunk may have been the same word.
                let known = (word.key != 0).then(|| short.find(word.home, word.key)).flatten();
                match known {
                    Some(entry) => self.pool.extend((0..entry.count()).map(|at| entry.id(at))),
                    None if pretoken.len() > small::MAX_BYTES => {
                        self.counts.merged += 1;
                        tables.merge_long(&mut self.heap, pretoken, &mut self.pool);
                        long.insert(pretoken, &self.pool[from..]);
                    }
                    None => {
                        self.waiting.push(at as u32);
                        if self.group.push(pretoken) {
                            self.merge_group(tables, short, long);
                        }
                        continue;
                    }
                }
            }
            self.found[at] = (from as u32, (self.pool.len() - from) as u32);
        }
        self.merge_group(tables, short, long);
    }

    /// Notes where the misses are in their documents, and their hashes.
    fn locate<'a>(&mut self, text_of: &impl Fn(usize) -> &'a [u8]) {
        self.words.clear();
        let mut segments = self.segments.iter();
        let mut segment = segments.next();
        for miss in &self.misses {
            let index = miss.index as usize;
            while segment.is_some_and(|it| index >= it.first + it.count) {
                segment = segments.next();
            }
            let segment = segment.expect("a miss lies in a segment");
            let start = segment.offset + self.starts[index] as usize;
            let end = segment.offset + self.starts[index + 1] as usize;
            let hash = LongCache::hash(&text_of(segment.document)[start..end]);
            let (key, home) = (self.keys[index], self.homes[index]);
            self.words.push(Word { document: segment.document, start, end, hash, key, home });
        }
    }

    /// Merges the words that wait, and remembers them.
    fn merge_group(&mut self, tables: &Tables, short: &mut ShortCache, long: &mut LongCache) {
        if self.group.is_empty() {
            return;
        }
        self.group.merge(&tables.pairs);
        self.counts.merged += self.waiting.len() as u64;
        for (index, &at) in self.waiting.iter().enumerate() {
            let Word { key, home, .. } = self.words[at as usize];
            let bytes = (!key).to_le_bytes();
            let pretoken = &bytes[..(16 - key.leading_zeros() as usize / 8)];
            let whole = if self.knows_tokens { None } else { tables.whole_id(pretoken) };
            let ids = whole.as_ref().map_or_else(|| self.group.ids(index), std::slice::from_ref);
            if !short.insert(home, key, ids) {
                long.insert(pretoken, ids);
            }
            self.found[at as usize] = (self.pool.len() as u32, ids.len() as u32);
            self.pool.extend_from_slice(ids);
        }
        self.waiting.clear();
    }

    /// Puts the ids of the misses into their places, from the last to the first, moving what lies between.
    fn fill_places(&mut self, base: usize, out: &mut Vec<u32>) {
        let (mut from, extra) = (out.len(), self.pool.len() - self.misses.len());
        out.resize(from + extra, 0);
        let mut to = out.len();
        let mut ends = self.ends.iter_mut().rev().peekable();
        for (miss, &(pool, count)) in self.misses.iter().zip(&self.found).rev() {
            let place = base + miss.place as usize;
            while let Some(end) = ends.next_if(|end| **end > place) {
                *end += to - from;
            }
            let between = place + 1..from;
            to -= between.len();
            out.copy_within(between, to);
            to -= count as usize;
            out[to..to + count as usize].copy_from_slice(&self.pool[pool as usize..][..count as usize]);
            from = place;
        }
    }
}
