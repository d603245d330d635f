//! The threads that wait for servers: two a process, begun with the first request and ended with the last loader that
//! reads from a server. They are no part of `num_threads`: they wait, decrypt and copy.

use std::future::Future;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use super::failure::Failure;
use crate::error::{Error, Result};
use crate::source::file::gives_up;
use crate::sync::lock;

/// Two keep up with the 10 Gbit/s of a small cloud machine; one does not, for TLS.
const THREADS: usize = 2;

/// Threads for files of the cache folder.
const FILE_THREADS: usize = 4;

/// How often a wait asks whether it is still wanted.
const MOMENT: Duration = Duration::from_millis(50);

/// The process that began the threads, and these: a child of a fork has none and begins its own.
static RUNNING: Mutex<(u32, Weak<Threads>)> = Mutex::new((0, Weak::new()));

/// Running threads. Dropping the last handle ends them without waiting for what they wait for.
#[derive(Debug)]
pub(super) struct Threads {
    runtime: Option<Runtime>,
    process: u32,
}

impl Threads {
    pub(super) fn get() -> Result<Arc<Self>> {
        let mut running = lock(&RUNNING);
        let process = std::process::id();
        if let Some(threads) = running.1.upgrade().filter(|_| running.0 == process) {
            return Ok(threads);
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(FILE_THREADS)
            .thread_name("nanofast-remote")
            .enable_all()
            .build()
            .map_err(|source| Error::Resource { what: "threads", reason: source.to_string() })?;
        let threads = Arc::new(Self { runtime: Some(runtime), process });
        *running = (process, Arc::downgrade(&threads));
        Ok(threads)
    }

    fn handle(&self) -> &Handle {
        self.runtime.as_ref().expect("it is taken when dropped").handle()
    }

    /// Begins `work`, to be waited for or dropped.
    pub(super) fn begin<T: Send + 'static>(
        &self,
        work: impl Future<Output = std::result::Result<T, Failure>> + Send + 'static,
    ) -> Pending<T> {
        let (sender, receiver) = sync_channel(1);
        let task = self.handle().spawn(async move {
            // Nobody listens when the wait was dropped.
            let _ = sender.send(work.await);
        });
        Pending { receiver, task }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        match self.process == std::process::id() {
            true => runtime.shutdown_background(),
            // After a fork its threads are not here to be ended.
            false => std::mem::forget(runtime),
        }
    }
}

/// Something that is under way. Dropped, it is broken off.
#[derive(Debug)]
pub(super) struct Pending<T> {
    receiver: Receiver<std::result::Result<T, Failure>>,
    task: JoinHandle<()>,
}

impl<T> Pending<T> {
    /// What comes of it; `GivenUp` when this thread's reads are wanted no longer.
    pub(super) fn wait(&self) -> std::result::Result<T, Failure> {
        loop {
            match self.receiver.recv_timeout(MOMENT) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) if gives_up() => return Err(Failure::GivenUp),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::GivenUp),
            }
        }
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
