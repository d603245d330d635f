//! Locking that a panic elsewhere cannot turn into a second panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks; a mutex that a panicking thread held is taken over, since every panic already ends the loader in words.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
