//! Encoders that no thread is using, kept since their caches are warm.

use std::sync::{Mutex, MutexGuard};

use super::encoder::Encoder;
use crate::sync::lock;

/// Encoders that are kept for whoever comes next, at most: as many as threads of a large machine.
const MOST_IDLE_ENCODERS: usize = 64;

/// How often a lock is looked at that is held for a few instructions: some microseconds.
const LOOKS_AT_LOCK: usize = 1000;

#[derive(Debug)]
pub(super) struct Idle {
    /// The process that they were first kept in.
    process: u32,
    encoders: Mutex<Vec<Encoder>>,
}

impl Idle {
    pub(super) fn new() -> Self {
        Self { process: std::process::id(), encoders: Mutex::default() }
    }

    /// An encoder whose caches take at most `cache_bytes`; where there is none, one with other caches goes.
    pub(super) fn take(&self, cache_bytes: usize) -> Option<Encoder> {
        let fits = |encoder: &Encoder| encoder.cache_bytes() == cache_bytes;
        let taken = self.encoders().and_then(|mut encoders| {
            let index = encoders.iter().rposition(fits).or(encoders.len().checked_sub(1))?;
            Some(encoders.swap_remove(index))
        });
        taken.filter(fits)
    }

    pub(super) fn give_back(&self, encoder: Encoder) {
        if let Some(mut encoders) = self.encoders().filter(|encoders| encoders.len() < MOST_IDLE_ENCODERS) {
            encoders.push(encoder);
        }
    }

    /// In a forked process the lock may be held by a thread that is not there: there one looks at it for a moment only.
    /// Elsewhere that would make one more encoder whenever its holder is not running.
    fn encoders(&self) -> Option<MutexGuard<'_, Vec<Encoder>>> {
        if self.process == std::process::id() {
            return Some(lock(&self.encoders));
        }
        (0..LOOKS_AT_LOCK).find_map(|_| {
            std::hint::spin_loop();
            self.encoders.try_lock().ok()
        })
    }
}
