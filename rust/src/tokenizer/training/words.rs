//! The pretokens of a corpus as lists of ids that get shorter with every merge.
//!
//! ```text
//! symbols   l o w . | l o w e r | ...        one list after the other; merged ones leave room at their end
//! ```

use std::ops::Range;

/// A pair of ids, the left one first: ordered as pairs are when they occur equally often.
pub(super) type Pair = (u32, u32);

/// Distinct pretokens, each with how often it occurs.
#[derive(Debug)]
pub(super) struct Words {
    symbols: Vec<u32>,
    words: Vec<Word>,
}

#[derive(Debug)]
struct Word {
    start: usize,
    length: u32,
    count: u64,
}

impl Words {
    /// Words of single bytes, whose ids are their places in `alphabet`.
    pub(super) fn new(pretokens: Vec<(Box<[u8]>, u64)>, alphabet: &[Vec<u8>]) -> Self {
        let mut ids = [0; 256];
        for (id, byte) in (0..).zip(alphabet) {
            ids[usize::from(byte[0])] = id;
        }
        let (mut symbols, mut words) = (Vec::new(), Vec::with_capacity(pretokens.len()));
        for (bytes, count) in pretokens {
            words.push(Word { start: symbols.len(), length: bytes.len() as u32, count });
            symbols.extend(bytes.iter().map(|&byte| ids[usize::from(byte)]));
        }
        Self { symbols, words }
    }

    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    pub(super) fn count(&self, word: usize) -> u64 {
        self.words[word].count
    }

    fn range(&self, word: usize) -> Range<usize> {
        let Word { start, length, .. } = self.words[word];
        start..start + length as usize
    }

    /// The pairs of neighbours in a word.
    pub(super) fn pairs(&self, word: usize) -> impl Iterator<Item = Pair> {
        self.symbols[self.range(word)].windows(2).map(|pair| (pair[0], pair[1]))
    }

    /// Merges `pair` into `id` throughout a word, from left to right. `changed` is told of each pair of neighbours that is
    /// gone (-1) or has come (+1) beside a merge.
    pub(super) fn merge(&mut self, word: usize, pair: Pair, id: u32, mut changed: impl FnMut(Pair, i64)) {
        let range = self.range(word);
        let symbols = &mut self.symbols[range];
        let (mut from, mut to) = (0, 0);
        while from < symbols.len() {
            if symbols[from] != pair.0 || symbols.get(from + 1) != Some(&pair.1) {
                symbols[to] = symbols[from];
                (from, to) = (from + 1, to + 1);
                continue;
            }
            if to > 0 {
                changed((symbols[to - 1], pair.0), -1);
                changed((symbols[to - 1], id), 1);
            }
            if let Some(&next) = symbols.get(from + 2) {
                changed((pair.1, next), -1);
                changed((id, next), 1);
            }
            symbols[to] = id;
            (from, to) = (from + 2, to + 1);
        }
        self.words[word].length = to as u32;
    }
}
