//! Merging of very long pretokens block by block, so that all that is worked on stays in the nearest caches.
//!
//! ```text
//! blocks   |a b c d e|f g h i j|      each merged by itself
//! seam        [c d e f g]             tokens around the seam, merged anew; taken once they fit those beside them
//! ```
//! A list of tokens is what merging their bytes gives exactly when each two neighbours fit: merging the bytes of the two gives
//! the two. (No merge that crosses a border can be the first to do so, since the bytes beside that border would then cross it
//! by themselves. The idea is that of the crate `bpe` of rust-gems.) Within a block neighbours fit; at a seam they are made to.
//! Where a shift goes on beyond what is around the seam, larger blocks are tried, then the whole.

use super::heap::HeapMerger;
use super::{PairTable, medium};

/// Bytes of a block: what arrays merge fastest, then what the heap merges within the second-level cache.
pub const SIZES: [usize; 2] = [medium::MAX_BYTES, 4096];

/// Tokens on each side of a seam that are merged anew at first.
const AROUND: usize = 3;

/// Blocks on each side of a seam that may be merged anew.
const MOST_AROUND: usize = 2;

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
    let mut merger = Blocks { pairs, heap, length, block: Vec::new(), seam: Vec::new() };
    for &size in sizes {
        if pretoken.len() <= 2 * size {
            break;
        }
        if merger.merge(size, pretoken, before, out) {
            return;
        }
        out.truncate(before);
    }
    merger.heap.merge(pairs, pretoken, out);
}

struct Blocks<'a, L> {
    pairs: &'a PairTable,
    heap: &'a mut HeapMerger,
    length: L,
    block: Vec<u32>,
    seam: Vec<u32>,
}

impl<L: Fn(u32) -> usize> Blocks<'_, L> {
    /// Appends the ids of `pretoken` to `out`, which has others up to `before`; false where a seam cannot be closed.
    fn merge(&mut self, size: usize, pretoken: &[u8], before: usize, out: &mut Vec<u32>) -> bool {
        for (index, bytes) in pretoken.chunks(size).enumerate() {
            let mut block = std::mem::take(&mut self.block);
            block.clear();
            self.merge_whole(bytes, &mut block);
            let is_closed = index == 0 || self.close(size, pretoken, index * size, before, &mut block, out);
            out.extend_from_slice(&block);
            self.block = block;
            if !is_closed {
                return false;
            }
        }
        true
    }

    fn merge_whole(&mut self, bytes: &[u8], out: &mut Vec<u32>) {
        match bytes.len() {
            ..=medium::MAX_BYTES => medium::merge(self.pairs, bytes, out),
            _ => self.heap.merge(self.pairs, bytes, out),
        }
    }

    /// Makes the ids in `out` and `block` fit, between which the seam is, at byte `at` of the pretoken.
    fn close(
        &mut self,
        size: usize,
        pretoken: &[u8],
        at: usize,
        before: usize,
        block: &mut Vec<u32>,
        out: &mut Vec<u32>,
    ) -> bool {
        let mut around = AROUND;
        loop {
            let left = around.min(out.len() - before);
            let right = around.min(block.len());
            let start = at - self.num_bytes(&out[out.len() - left..]);
            let end = at + self.num_bytes(&block[..right]);
            if end - start > 2 * MOST_AROUND * size {
                return false;
            }
            let mut seam = std::mem::take(&mut self.seam);
            seam.clear();
            self.merge_whole(&pretoken[start..end], &mut seam);
            let fits_left =
                left == out.len() - before || self.fits(out[out.len() - left - 1], seam[0], pretoken, start);
            let fits = fits_left
                && (right == block.len() || self.fits(seam[seam.len() - 1], block[right], pretoken, end));
            if fits {
                out.truncate(out.len() - left);
                block.splice(..right, seam.iter().copied());
            }
            self.seam = seam;
            if fits {
                return true;
            }
            around *= 2;
        }
    }

    fn num_bytes(&self, ids: &[u32]) -> usize {
        ids.iter().map(|&id| (self.length)(id)).sum()
    }

    /// Whether merging the bytes of two neighbours, whose border is at byte `at`, gives the two.
    fn fits(&mut self, left: u32, right: u32, pretoken: &[u8], at: usize) -> bool {
        let (start, end) = (at - (self.length)(left), at + (self.length)(right));
        let mut ids = Vec::with_capacity(end - start);
        self.merge_whole(&pretoken[start..end], &mut ids);
        ids == [left, right]
    }
}
