//! How many threads of this process work at once: all loaders together keep to the largest of their own numbers.
//!
//! ```text
//! train, 4 threads   ▶▶▶▶ · ▶▶     a thread that finds the budget spent rests a moment; what is done at once is at
//! val, 4 threads     · · ▶▶ ·      most 4 jobs, whoever has them
//! ```
//! Counting is all there is: nobody holds anything that a stuck read, a panic or a fork could keep from the others. A
//! thread that has rested long enough goes on all the same.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

/// What a thread rests before it looks again: a fraction of a job.
const REST: Duration = Duration::from_micros(200);

/// How often it looks before it goes on all the same: 50 ms, many jobs, so that only a stuck thread is overtaken.
const MOST_RESTS: usize = 250;

/// The loaders of a process and their running threads. All counts are `Relaxed`: no memory depends on them.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    process: AtomicU32,
    loaders: AtomicUsize,
    limit: AtomicUsize,
    running: AtomicUsize,
}

/// What all loaders of this process share.
static BUDGET: Budget = Budget {
    process: AtomicU32::new(0),
    loaders: AtomicUsize::new(0),
    limit: AtomicUsize::new(0),
    running: AtomicUsize::new(0),
};

/// A loader's part in the budget.
#[derive(Debug)]
pub(crate) struct Share<'a>(&'a Budget);

/// The right to work for a while.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a Budget);

impl Share<'static> {
    /// A loader with `num_threads` joins those of this process.
    pub(crate) fn new(num_threads: usize) -> Self {
        BUDGET.join(num_threads)
    }
}

impl Budget {
    fn join(&self, num_threads: usize) -> Share<'_> {
        let process = std::process::id();
        if self.process.swap(process, Ordering::Relaxed) != process {
            // A forked child counts anew: the parent's threads are not here.
            for count in [&self.loaders, &self.limit, &self.running] {
                count.store(0, Ordering::Relaxed);
            }
        }
        self.loaders.fetch_add(1, Ordering::Relaxed);
        self.limit.fetch_max(num_threads, Ordering::Relaxed);
        Share(self)
    }
}

impl Share<'_> {
    /// Waits until the budget allows one thread more. `rest` waits a moment and says whether to wait on.
    pub(crate) fn enter(&self, rest: impl Fn(Duration) -> bool) -> Permit<'_> {
        let budget = self.0;
        for _ in 0..MOST_RESTS {
            if budget.running.fetch_add(1, Ordering::Relaxed) < budget.limit.load(Ordering::Relaxed) {
                return Permit(budget);
            }
            budget.running.fetch_sub(1, Ordering::Relaxed);
            if !rest(REST) {
                break;
            }
        }
        budget.running.fetch_add(1, Ordering::Relaxed);
        Permit(budget)
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        if self.0.loaders.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.limit.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(duration: Duration) -> bool {
        std::thread::sleep(duration);
        true
    }

    #[test]
    fn two_loaders_work_no_more_threads_at_once_than_one() {
        let budget = Budget::default();
        let (one, other) = (budget.join(2), budget.join(1));
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for share in [&one, &one, &other] {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let _permit = share.enter(rest);
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_micros(300));
                        now.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 2);
        drop((one, other));
        assert_eq!((budget.limit.into_inner(), budget.running.into_inner()), (0, 0));
    }

    #[test]
    fn a_thread_that_is_stuck_stops_nobody_for_good() {
        let budget = Budget::default();
        let share = budget.join(1);
        let _stuck = share.enter(rest);
        drop(share.enter(rest));
        drop(share.enter(|_| false));
    }
}
