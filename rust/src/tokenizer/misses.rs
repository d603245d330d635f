//! The ids of pretokens that are not at their home in the short cache: looked for elsewhere, else merged in groups, and
//! remembered.

use super::Tables;
use super::bpe::group::Group;
use super::bpe::heap::HeapMerger;
use super::cache::{Answer, Caches, Key, LongCache};

/// The misses of a chunk, and their ids once they are resolved.
#[derive(Debug)]
pub(super) struct Misses {
    /// Whether the caches hold every token that is taken whole: a pretoken that is not there is then no token.
    knows_tokens: bool,
    words: Vec<Word>,
    found: Found,
    short: Waiting<1>,
    medium: Waiting<2>,
    long: Waiting<4>,
    heap: HeapMerger,
    num_merged: u64,
}

/// A pretoken in its document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    pub(super) document: usize,
    pub(super) start: usize,
    pub(super) end: usize,
    /// As [`LongCache::hash`] gives it, once it is known that the long cache has to be asked; else 0.
    pub(super) hash: u64,
    pub(super) key: Key,
    pub(super) home: u32,
}

/// Ids of words in any order.
#[derive(Debug, Default)]
struct Found {
    /// For each word, where its ids begin in `pool`, and how many they are.
    ranges: Vec<(u32, u32)>,
    pool: Vec<u32>,
}

/// Words in a group, and which they are.
#[derive(Debug, Default)]
struct Waiting<const REGISTERS: usize> {
    group: Group<REGISTERS>,
    words: Vec<u32>,
}

/// Where the ids of merged words go.
struct Store<'m, F> {
    tables: &'m Tables,
    knows_tokens: bool,
    words: &'m [Word],
    text_of: &'m F,
    found: &'m mut Found,
    caches: &'m mut Caches,
}

impl Misses {
    pub(super) fn new(knows_tokens: bool) -> Self {
        Self {
            knows_tokens,
            words: Vec::new(),
            found: Found::default(),
            short: Waiting::default(),
            medium: Waiting::default(),
            long: Waiting::default(),
            heap: HeapMerger::default(),
            num_merged: 0,
        }
    }

    /// Words that were in neither cache since the last call.
    pub(super) fn take_num_merged(&mut self) -> u64 {
        std::mem::take(&mut self.num_merged)
    }

    pub(super) fn heap(&self) -> &HeapMerger {
        &self.heap
    }

    pub(super) fn heap_mut(&mut self) -> &mut HeapMerger {
        &mut self.heap
    }

    pub(super) fn clear(&mut self) {
        self.words.clear();
        self.found.ranges.clear();
        self.found.pool.clear();
    }

    pub(super) fn push(&mut self, word: Word) {
        self.words.push(word);
    }

    /// Ids of all words, once they are resolved.
    pub(super) fn num_ids(&self) -> usize {
        self.found.pool.len()
    }

    /// The ids of word `at`, once they are resolved.
    pub(super) fn ids(&self, at: usize) -> &[u32] {
        let (first, count) = self.found.ranges[at];
        &self.found.pool[first as usize..][..count as usize]
    }

    /// Finds the ids of all words.
    pub(super) fn resolve<'a>(
        &mut self,
        tables: &Tables,
        caches: &mut Caches,
        text_of: &impl Fn(usize) -> &'a [u8],
    ) {
        self.fetch(caches, text_of);
        let Self { knows_tokens, words, found, heap, num_merged, .. } = self;
        found.ranges.resize(words.len(), (0, 0));
        let mut store = Store { tables, knows_tokens: *knows_tokens, words, text_of, found, caches };
        for at in 0..store.words.len() {
            if store.recall(at) {
                continue;
            }
            *num_merged += 1;
            let pretoken = store.pretoken(at);
            if pretoken.len() <= Group::<1>::MAX_BYTES {
                self.short.push(at, pretoken, &mut store);
            } else if pretoken.len() <= Group::<2>::MAX_BYTES {
                self.medium.push(at, pretoken, &mut store);
            } else if pretoken.len() <= Group::<4>::MAX_BYTES {
                self.long.push(at, pretoken, &mut store);
            } else {
                match store.whole_id(at) {
                    Some(id) => store.remember(at, &[id]),
                    None => store.put(at, |ids| tables.merge_long(heap, pretoken, ids)),
                }
            }
        }
        self.short.merge(&mut store);
        self.medium.merge(&mut store);
        self.long.merge(&mut store);
    }

    /// Asks for what the look-ups will read to come near; each pass reads what the one before asked for.
    fn fetch<'a>(&mut self, caches: &Caches, text_of: &impl Fn(usize) -> &'a [u8]) {
        for word in self.words.iter().filter(|word| word.key != 0) {
            caches.short.fetch_beside(word.home);
        }
        for word in &mut self.words {
            if word.key == 0 || matches!(caches.short.find(word.home, word.key), Answer::Elsewhere) {
                word.hash = LongCache::hash(&text_of(word.document)[word.start..word.end]);
                caches.long.fetch(word.hash);
            }
        }
        for word in self.words.iter().filter(|word| word.hash != 0) {
            caches.long.fetch_arena(word.hash);
        }
    }
}

impl Found {
    /// Notes that the ids of word `at` are those in the pool from `first` on.
    fn end_word(&mut self, at: usize, first: usize) {
        self.ranges[at] = (first as u32, (self.pool.len() - first) as u32);
    }
}

impl<const REGISTERS: usize> Waiting<REGISTERS> {
    /// Takes a word, and merges all that wait when the group is full.
    fn push<'a>(&mut self, at: usize, pretoken: &[u8], store: &mut Store<'_, impl Fn(usize) -> &'a [u8]>) {
        self.words.push(at as u32);
        if self.group.push(pretoken) {
            self.merge(store);
        }
    }

    fn merge<'a>(&mut self, store: &mut Store<'_, impl Fn(usize) -> &'a [u8]>) {
        self.group.merge(&store.tables.pairs);
        for (index, at) in self.words.drain(..).enumerate() {
            let whole = store.whole_id(at as usize);
            let ids = whole.as_ref().map_or_else(|| self.group.ids(index), std::slice::from_ref);
            store.remember(at as usize, ids);
        }
    }
}

impl<'a, F: Fn(usize) -> &'a [u8]> Store<'_, F> {
    fn pretoken(&self, at: usize) -> &'a [u8] {
        let word = &self.words[at];
        &(self.text_of)(word.document)[word.start..word.end]
    }

    /// Takes the ids of a word from the caches; returns whether they were there.
    fn recall(&mut self, at: usize) -> bool {
        let Word { key, home, hash, .. } = self.words[at];
        let (pretoken, first) = (self.pretoken(at), self.found.pool.len());
        let hash = || if hash == 0 { LongCache::hash(pretoken) } else { hash };
        if !self.caches.recall((key, home), hash, pretoken, &mut self.found.pool) {
            return false;
        }
        self.found.end_word(at, first);
        true
    }

    /// The id of a word that is taken whole.
    fn whole_id(&self, at: usize) -> Option<u32> {
        if self.knows_tokens { None } else { self.tables.whole_id(self.pretoken(at)) }
    }

    /// Takes the ids of a word, for the caches too.
    fn remember(&mut self, at: usize, ids: &[u32]) {
        self.put(at, |pool| pool.extend_from_slice(ids));
    }

    /// The same where `append` makes them.
    fn put(&mut self, at: usize, append: impl FnOnce(&mut Vec<u32>)) {
        let Word { key, home, .. } = self.words[at];
        let first = self.found.pool.len();
        append(&mut self.found.pool);
        self.caches.remember((key, home), self.pretoken(at), &self.found.pool[first..]);
        self.found.end_word(at, first);
    }
}
