//! Locking that a panic elsewhere cannot turn into a second panic; atomics that a model can look into.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The ring's atomics; the model of the ring puts its own in their place.
#[cfg(loom)]
pub(crate) use loom::sync::atomic::AtomicU64;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::AtomicU64;

/// Locks; a mutex that a panicking thread held is taken over, since every panic already ends the loader in words.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes threads that wait for a change of what a mutex guards. Where none waits it costs no call of the system: a loader
/// of small batches wakes its threads ten thousand times a second.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    condition: Condvar,
    /// Written under the mutex. Relaxed: whoever rings has held it behind the change, so a thread that began to wait
    /// before is counted, and one that begins later has seen the change.
    num_waiting: AtomicUsize,
}

impl Bell {
    /// Waits for it to ring.
    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.num_waiting.fetch_add(1, Ordering::Relaxed);
        let guard = self.condition.wait(guard).unwrap_or_else(PoisonError::into_inner);
        self.num_waiting.fetch_sub(1, Ordering::Relaxed);
        guard
    }

    /// Waits up to `timeout` while `condition` holds.
    pub(crate) fn wait_while<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
        condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        self.num_waiting.fetch_add(1, Ordering::Relaxed);
        let waited = self.condition.wait_timeout_while(guard, timeout, condition);
        let guard = waited.unwrap_or_else(PoisonError::into_inner).0;
        self.num_waiting.fetch_sub(1, Ordering::Relaxed);
        guard
    }

    /// Wakes one of those who wait.
    pub(crate) fn ring_one(&self) {
        if self.num_waiting.load(Ordering::Relaxed) > 0 {
            self.condition.notify_one();
        }
    }

    /// Wakes all who wait.
    pub(crate) fn ring_all(&self) {
        if self.num_waiting.load(Ordering::Relaxed) > 0 {
            self.condition.notify_all();
        }
    }
}
