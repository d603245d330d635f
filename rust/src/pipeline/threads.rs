//! Threads: begun here and nowhere else.

use std::thread::JoinHandle;

use crate::error::{Error, Result, said};

/// A thread with a name: all threads of the crate begin here.
pub(crate) fn start_thread(name: String, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let started = std::thread::Builder::new().name(name).spawn(work);
    started.map_err(|error| Error::Resource { what: "a thread", reason: error.to_string() })
}

/// Runs `work` on each of `parts`, on `num_threads` threads of which the caller's is one; the results are in order.
///
/// # Panics
/// When `work` does.
#[cfg(feature = "python")]
pub(crate) fn share_out<T, R>(num_threads: usize, parts: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R>
where
    T: Sync,
    R: Send,
{
    use std::sync::atomic::{AtomicUsize, Ordering};
    let taken = AtomicUsize::new(0);
    let share = || {
        let mut done = Vec::new();
        // Relaxed: each index is taken once, and joining the threads makes their results visible.
        while let Some((index, part)) = parts.iter().enumerate().nth(taken.fetch_add(1, Ordering::Relaxed)) {
            done.push((index, work(part)));
        }
        done
    };
    let mut results = std::thread::scope(|scope| {
        let others: Vec<_> = (1..num_threads.min(parts.len())).map(|_| scope.spawn(share)).collect();
        let mut results = share();
        for other in others {
            results.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// What a thread said when it panicked.
pub(crate) fn message(panic: &(dyn std::any::Any + Send)) -> String {
    said(panic).unwrap_or("a panic without a message").into()
}
