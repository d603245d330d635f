//! Waiting for batches, and for threads to end, without holding the loader.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::pipeline::Batches;

/// Threads that are to end: dropping it waits for them.
pub struct Closing(pub(super) Option<Arc<dyn Batches>>);

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(pipeline) = &self.0 {
            pipeline.stop();
        }
    }
}

/// Waits for batches while others use the loader.
#[derive(Clone)]
pub struct Waiter {
    pub(super) pipeline: Arc<dyn Batches>,
    pub(super) first_round: u64,
}

impl Waiter {
    /// Waits up to `timeout` until `Loader::poll` has something else to say than `Pending`, or the loader is stopped.
    pub fn wait(&self, timeout: Duration) {
        self.pipeline.wait(timeout);
    }

    /// Rounds, counted from the beginning of the data, that this rank is sure to have data for (with `drop_last`: on
    /// each of its lanes), and whether it is known that there are no more. Waits up to `timeout` for more than `than`
    /// of them, or the last. Only for a loader that `share_end` was called on.
    pub fn known_rounds(&self, than: u64, timeout: Duration) -> Result<(u64, bool)> {
        let known = self.pipeline.known_rounds(than.saturating_sub(self.first_round), timeout);
        known.map(|(rounds, is_last)| (self.first_round + rounds, is_last))
    }
}
