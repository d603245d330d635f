//! Locking that a panic elsewhere cannot turn into a second panic; atomics that a model can look into.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The ring's atomics; the model of the ring puts its own in their place.
#[cfg(loom)]
pub(crate) use loom::sync::atomic::AtomicU64;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::AtomicU64;

/// Locks; a mutex that a panicking thread held is taken over, since every panic already ends the loader in words.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
