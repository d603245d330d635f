//! What a thread does: the most urgent job there is, again and again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::error::Error;
use crate::source::reading_until;
use crate::sync::lock;
use crate::tokenizer::DocumentEncoder;

use super::schedule::{Job, Schedule};
use super::{Shared, message};

impl Shared {
    pub(super) fn run(&self) {
        let mut encoder = None;
        let stopping = self.stopping.clone();
        reading_until(move || stopping.load(Ordering::Relaxed), || self.run_with(&mut encoder));
        if let Some(mut encoder) = encoder {
            encoder.inner().stop_with(None);
            self.work.encoding.give_back(encoder);
        }
    }

    fn run_with(&self, encoder: &mut Option<DocumentEncoder>) {
        let mut worked = false;
        while let Some(job) = self.next_job(worked) {
            worked = true;
            let _permit = self.share.enter(|moment| {
                std::thread::sleep(moment);
                !self.stopping.load(Ordering::Relaxed)
            });
            let (stage, lane, place) = match &job {
                Job::Pack(packing) => ("packing", Some(packing.lane), None),
                Job::Help(_) => ("tokenizing a part of a document", None, None),
                Job::Read(lane, step) => {
                    ("reading and tokenizing", Some(*lane), Some(self.place(step.reader.unit())))
                }
            };
            let result = catch_unwind(AssertUnwindSafe(|| match job {
                Job::Pack(packing) => self.pack(packing),
                Job::Help(parts) => self.help(&parts, encoder),
                Job::Read(lane, step) => self.read(lane, step, encoder),
            }));
            let error = match result {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error,
                Err(panic) => {
                    let whose = lane.map(|lane| format!("lane {lane}: ")).unwrap_or_default();
                    Error::Panic { stage, place, reason: whose + &message(&*panic) }
                }
            };
            self.fail(&mut lock(&self.schedule), error);
            return;
        }
    }

    /// Ends all threads with an error, the first one.
    pub(super) fn fail(&self, schedule: &mut Schedule, error: Error) {
        schedule.error.get_or_insert(error);
        schedule.stopping = true;
        self.stopping.store(true, Ordering::Relaxed);
        self.job.ring_all();
        self.batch.ring_all();
    }

    /// The most urgent thing to do; sleeps while there is none; `None` when it is time to end. `worked`: whether the
    /// thread had a job before.
    fn next_job(&self, worked: bool) -> Option<Job> {
        let mut schedule = lock(&self.schedule);
        schedule.running -= usize::from(worked);
        loop {
            if schedule.stopping {
                return None;
            }
            self.rewind_lanes(&mut schedule);
            let job = self.pack_job(&mut schedule).or_else(|| self.help_job(&mut schedule));
            if let Some(job) = job.or_else(|| self.read_job(&mut schedule)) {
                schedule.running += 1;
                return Some(job);
            }
            if self.make_room(&mut schedule) {
                continue;
            }
            let (start, idle) = (Instant::now(), schedule.reason_to_wait());
            schedule = self.job.wait(schedule);
            self.work.metrics.spent(idle, start);
        }
    }
}
