//! The two caches as one: short pretokens in the short one, what it cannot hold in the long one.

use super::long::LongCache;
use super::short::{Answer, Key, ShortCache};

/// Both caches of an encoder, within a limit.
#[derive(Debug)]
pub(crate) struct Caches {
    pub(crate) short: ShortCache,
    pub(crate) long: LongCache,
}

impl Caches {
    /// Empty caches that take at most `limit_bytes`, but for the few entries that they have at least.
    pub(crate) fn new(limit_bytes: usize) -> Self {
        // Three quarters for short pretokens, which are 99 % of English; a table's size is a power of two.
        let short_bytes = (limit_bytes / 4 * 3).clamp(ShortCache::ENTRY_BYTES * 4, 1 << 30);
        let bits = (short_bytes / ShortCache::ENTRY_BYTES).ilog2();
        let long_bytes = limit_bytes.saturating_sub(ShortCache::ENTRY_BYTES << bits);
        Self { short: ShortCache::new(bits), long: LongCache::new(long_bytes) }
    }

    /// Appends the ids of a pretoken to `out`, if it is known; returns whether it is. `key` and `home` are what the short
    /// cache makes of it, `hash` what the long one does; for a short pretoken it is only asked for when it is needed.
    #[inline]
    pub(crate) fn recall(
        &self,
        (key, home): (Key, u32),
        hash: impl FnOnce() -> u64,
        pretoken: &[u8],
        out: &mut Vec<u32>,
    ) -> bool {
        match if key == 0 { Answer::Elsewhere } else { self.short.find(home, key) } {
            Answer::Ids(entry) => out.extend((0..entry.count()).map(|at| entry.id(at))),
            Answer::Elsewhere => return self.long.find(hash(), pretoken, out),
            Answer::Nowhere => return false,
        }
        true
    }

    /// Stores the ids of a pretoken that is not known, where there is room; returns whether there was.
    pub(crate) fn remember(&mut self, (key, home): (Key, u32), pretoken: &[u8], ids: &[u32]) -> bool {
        if self.short.insert(home, key, ids) {
            return true;
        }
        let stored = self.long.insert(pretoken, ids);
        if stored && key != 0 {
            self.short.insert_elsewhere(home, key);
        }
        stored
    }
}
