//! Merging of very long pretokens window by window, so that all that is worked on stays in the nearest caches.
//!
//! ```text
//! out      |ab|cd|e|              tokens so far, the last of them uncertain
//! window      |cd e f g h i|      begins a few tokens before the end; its tokens replace them
//! ```
//! A list of tokens is what merging their bytes gives exactly when each two neighbours fit: merging the bytes of the two gives
//! the two. (No merge that crosses a border can be the first to do so, since the bytes beside that border would then cross it
//! by themselves. The idea is that of the crate `bpe` of rust-gems.) Within a window neighbours fit, so what is left to see is
//! whether the window's first token fits the one before it. Where it does not, the window begins further back; where it would
//! begin too far back, larger windows are tried, then the whole. Of a run of one letter or of spaces every window is the same:
//! one that is like the last is not merged again, nor are two neighbours like the last.

use std::ops::Range;

use super::heap::HeapMerger;
use super::{PairTable, medium};

/// Bytes of a window: what arrays merge fastest; then what tokens of 128 bytes, such as runs of spaces, need, with the heap in
/// the nearest cache.
pub const SIZES: [usize; 2] = [medium::MAX_BYTES, 2048];

/// Tokens that a window takes back at first.
const TAKEN_BACK: usize = 3;

/// Appends the ids of `pretoken`, equal to those of [`naive::merge`](super::naive::merge); `length` gives a token's bytes.
pub fn merge(
    pairs: &PairTable,
    heap: &mut HeapMerger,
    length: impl Fn(u32) -> usize,
    sizes: &[usize],
    pretoken: &[u8],
    out: &mut Vec<u32>,
) {
    let before = out.len();
    let (ids, two) = (Vec::new(), Vec::new());
    let mut merger = Windows { pairs, heap, length, window: 0..0, ids, fitting: None, two };
    for &size in sizes.iter().take_while(|&&size| size < pretoken.len()) {
        if merger.merge(size, pretoken, before, out) {
            return;
        }
        out.truncate(before);
    }
    merger.heap.merge(pairs, pretoken, out);
}

struct Windows<'a, L> {
    pairs: &'a PairTable,
    heap: &'a mut HeapMerger,
    length: L,
    /// Bytes of the pretoken that were merged last …
    window: Range<usize>,
    /// … and what came out.
    ids: Vec<u32>,
    /// The neighbours that were last seen to fit.
    fitting: Option<(u32, u32)>,
    /// What merging two neighbours gave.
    two: Vec<u32>,
}

impl<L: Fn(u32) -> usize> Windows<'_, L> {
    /// Appends the ids of `pretoken` to `out`, which has others up to `before`; false where windows of `size` are too small.
    fn merge(&mut self, size: usize, pretoken: &[u8], before: usize, out: &mut Vec<u32>) -> bool {
        let (mut done, mut taken_back, mut step) = (0, TAKEN_BACK, 0u32);
        while done < pretoken.len() {
            step = step.wrapping_add(1);
            if self.heap.stops(step) {
                out.push(self.pairs.byte_id(pretoken[0])); // callers count on one id at least
                return true;
            }
            let keep = out.len() - taken_back.min(out.len() - before);
            let start = done - out[keep..].iter().map(|&id| (self.length)(id)).sum::<usize>();
            if done - start > size / 2 {
                return false;
            }
            let end = pretoken.len().min(start + size);
            if pretoken[start..end] != pretoken[self.window.clone()] {
                merge_whole(self.pairs, self.heap, &pretoken[start..end], &mut self.ids);
            }
            self.window = start..end;
            if keep == before || self.fits((out[keep - 1], self.ids[0]), pretoken, start) {
                out.truncate(keep);
                out.extend_from_slice(&self.ids);
                (done, taken_back) = (end, TAKEN_BACK);
            } else {
                taken_back *= 2;
            }
        }
        true
    }

    /// Whether merging the bytes of two neighbours, whose border is at byte `at`, gives the two.
    fn fits(&mut self, (left, right): (u32, u32), pretoken: &[u8], at: usize) -> bool {
        if self.fitting == Some((left, right)) {
            return true;
        }
        let (start, end) = (at - (self.length)(left), at + (self.length)(right));
        merge_whole(self.pairs, self.heap, &pretoken[start..end], &mut self.two);
        let fits = self.two == [left, right];
        self.fitting = fits.then_some((left, right)).or(self.fitting);
        fits
    }
}

/// Puts the ids of `bytes` into `ids`.
fn merge_whole(pairs: &PairTable, heap: &mut HeapMerger, bytes: &[u8], ids: &mut Vec<u32>) {
    ids.clear();
    if bytes.len() <= medium::MAX_BYTES {
        ids.resize(bytes.len(), 0);
        let count = medium::merge(pairs, bytes, ids);
        ids.truncate(count);
    } else {
        heap.merge(pairs, bytes, ids);
    }
}
