//! A ring of slots over memory that the caller owns (torch's, pinned where CUDA is there; numpy's; or our own).
//!
//! ```text
//! slot i serves batches i, i + N, i + 2N, …        stamp of the k-th use:  4k free → 4k+1 written → 4k+2 ready
//!                                                                          → 4k+3 read → 4(k+1) free
//! ```
//! Invariants: a batch has one writer and one reader; a slot's bytes are touched by whoever moved its stamp to
//! `written` or `read`, and by nobody else. Nothing here waits: a slot that is not there is `None`.
//! What is never done: freeing the memory, or touching it after the last `Arc<Ring>` is gone.
#![expect(unsafe_code, reason = "slots are handed out from raw memory; every block names its invariant")]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::sync::AtomicU64;

/// Memory of all slots: int32, contiguous, kept alive by its owner.
#[derive(Debug)]
pub struct SlotMemory {
    pointer: *mut i32,
    len: usize,
    /// Set when the memory is ours (tests and plain Rust use).
    _owned: Option<Box<[i32]>>,
}

// SAFETY: the pointer is only followed through `Ring`, which hands each slot to one thread at a time.
unsafe impl Send for SlotMemory {}
// SAFETY: as above; a shared reference gives no access to the bytes.
unsafe impl Sync for SlotMemory {}

impl SlotMemory {
    /// Zeroed memory of our own.
    pub fn owned(len: usize) -> Self {
        let mut memory = vec![0; len].into_boxed_slice();
        Self { pointer: memory.as_mut_ptr(), len, _owned: Some(memory) }
    }

    /// Memory that somebody else owns.
    ///
    /// # Safety
    /// `pointer` is aligned and valid for reads and writes of `len` initialized int32 until every thread of the
    /// loader has ended, and nobody else writes to it; readers outside read a slot only between `read_slot` and
    /// `release`.
    pub unsafe fn borrowed(pointer: *mut i32, len: usize) -> Self {
        Self { pointer, len, _owned: None }
    }
}

/// The ring.
#[derive(Debug)]
pub struct Ring {
    memory: SlotMemory,
    slot_len: usize,
    stamps: Box<[AtomicU64]>,
    /// Stand for the slots' bytes in the model, which sees every access to them.
    #[cfg(loom)]
    touched: Box<[Touched]>,
}

/// See `Ring::touched`.
#[cfg(loom)]
#[derive(Debug)]
struct Touched(loom::cell::UnsafeCell<()>);

// SAFETY: it holds nothing; the model finds accesses at the same time, which is what it is for.
#[cfg(loom)]
unsafe impl Sync for Touched {}

impl Ring {
    /// `num_slots` slots of `slot_len` int32 over `memory`.
    ///
    /// # Panics
    /// When the memory is not exactly that large.
    pub fn new(memory: SlotMemory, num_slots: usize, slot_len: usize) -> Arc<Self> {
        assert_eq!(
            Some(memory.len),
            num_slots.checked_mul(slot_len),
            "the ring's memory holds its slots exactly"
        );
        let stamps = (0..num_slots).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            memory,
            slot_len,
            stamps,
            #[cfg(loom)]
            touched: (0..num_slots).map(|_| Touched(loom::cell::UnsafeCell::new(()))).collect(),
        })
    }

    /// Number of slots.
    pub fn num_slots(&self) -> usize {
        self.stamps.len()
    }

    /// int32 values in a slot.
    pub fn slot_len(&self) -> usize {
        self.slot_len
    }

    /// The slot that serves batch `sequence`.
    pub fn slot_of(&self, sequence: u64) -> usize {
        (sequence % self.stamps.len() as u64) as usize
    }

    /// The right to write batch `sequence`, if its slot is free.
    pub fn write_slot(self: &Arc<Self>, sequence: u64) -> Option<SlotWriter> {
        self.step(sequence, 0).then(|| SlotWriter { ring: self.clone(), sequence })
    }

    /// The right to read batch `sequence`, if it is ready: true once, until `release`.
    pub fn read_slot(&self, sequence: u64) -> bool {
        self.step(sequence, 2)
    }

    /// Gives the slot of a batch back after `read_slot`; false when it was given back before.
    pub fn release(&self, sequence: u64) -> bool {
        self.step(sequence, 3)
    }

    /// The tokens of a batch between `read_slot` and `release`.
    pub fn tokens(&self, sequence: u64) -> Option<&[i32]> {
        let slot = self.slot_of(sequence);
        // Acquire pairs with the Release of the writer's commit.
        if self.stamps[slot].load(Ordering::Acquire) != self.stamp(sequence, 3) {
            return None;
        }
        #[cfg(loom)]
        self.touched[slot].0.with(|_| ());
        // SAFETY: in bounds by construction; the stamp says that this batch is being read, so no writer exists until
        // `release`, which the reader calls when it is done with the slice (the contract of `read_slot`).
        Some(unsafe {
            std::slice::from_raw_parts(self.memory.pointer.add(slot * self.slot_len), self.slot_len)
        })
    }

    fn stamp(&self, sequence: u64, phase: u64) -> u64 {
        sequence / self.stamps.len() as u64 * 4 + phase
    }

    /// Moves a batch's slot from `phase` to the next, if it is there. AcqRel: pairs with the step before (whose
    /// writes must be seen) and the step after (which must see ours).
    fn step(&self, sequence: u64, phase: u64) -> bool {
        let from = self.stamp(sequence, phase);
        let stamp = &self.stamps[self.slot_of(sequence)];
        stamp.compare_exchange(from, from + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// The right to write one batch, from `write_slot` to `commit`. It may move between threads.
#[derive(Debug)]
pub struct SlotWriter {
    ring: Arc<Ring>,
    sequence: u64,
}

impl SlotWriter {
    /// The slot's tokens, `slot_len` int32.
    pub fn tokens_mut(&mut self) -> &mut [i32] {
        let (ring, slot) = (&self.ring, self.ring.slot_of(self.sequence));
        #[cfg(loom)]
        ring.touched[slot].0.with_mut(|_| ());
        // SAFETY: in bounds by construction; the stamp is `written` for this batch and this is its only writer
        // (`write_slot` succeeds once a batch), borrowed mutably here, so the slice is unique.
        unsafe {
            std::slice::from_raw_parts_mut(ring.memory.pointer.add(slot * ring.slot_len), ring.slot_len)
        }
    }

    /// The batch.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Makes the batch ready to be read.
    pub fn commit(self) {
        let committed = self.ring.step(self.sequence, 1);
        debug_assert!(committed, "a writer holds its slot");
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_written_read_and_reused_in_turn() {
        let ring = Ring::new(SlotMemory::owned(6), 2, 3);
        let mut writer = ring.write_slot(0).unwrap();
        assert!(ring.write_slot(0).is_none() && ring.write_slot(2).is_none() && !ring.read_slot(0));
        writer.tokens_mut().copy_from_slice(&[1, 2, 3]);
        writer.commit();
        assert!(ring.tokens(0).is_none() && ring.read_slot(0) && !ring.read_slot(0));
        assert_eq!(ring.tokens(0), Some(&[1, 2, 3][..]));
        assert!(ring.write_slot(2).is_none());
        assert!(ring.release(0) && !ring.release(0));
        assert!(ring.tokens(0).is_none());
        assert_eq!(ring.write_slot(2).unwrap().sequence(), 2);
    }

    #[test]
    fn every_batch_arrives_whole_through_few_slots() {
        let ring = Ring::new(SlotMemory::owned(3 * 64), 3, 64);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for sequence in 0..2000 {
                    let mut writer = loop {
                        match ring.write_slot(sequence) {
                            Some(writer) => break writer,
                            None => std::thread::yield_now(),
                        }
                    };
                    writer.tokens_mut().fill(sequence as i32);
                    writer.commit();
                }
            });
            for sequence in 0..2000 {
                while !ring.read_slot(sequence) {
                    std::thread::yield_now();
                }
                assert!(ring.tokens(sequence).unwrap().iter().all(|&token| token == sequence as i32));
                assert!(ring.release(sequence));
            }
        });
    }
}

/// `scripts/model_ring.sh` runs it: every interleaving of two writers and a reader, up to two preemptions.
#[cfg(all(test, loom))]
mod model {
    use super::*;

    /// Tries a few times, others running between. Then it is given up: a model of endless waiting has no end.
    fn within_reason<T>(attempt: impl Fn() -> Option<T>) -> Option<T> {
        (0..ATTEMPTS).find_map(|_| {
            let found = attempt();
            if found.is_none() {
                loom::thread::yield_now();
            }
            found
        })
    }

    const ATTEMPTS: usize = 3;

    #[test]
    fn two_writers_and_a_reader_touch_a_slot_in_turn() {
        let (num_slots, num_batches) = (2, 4);
        let most_read = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let most = most_read.clone();
        loom::model(move || {
            let ring = Ring::new(SlotMemory::owned(num_slots), num_slots, 1);
            let writers = (0..2).map(|lane| {
                let ring = ring.clone();
                loom::thread::spawn(move || {
                    for sequence in (lane..num_batches as u64).step_by(2) {
                        let Some(mut writer) = within_reason(|| ring.write_slot(sequence)) else { return };
                        writer.tokens_mut()[0] = sequence as i32;
                        writer.commit();
                    }
                })
            });
            let writers: Vec<_> = writers.collect();
            for sequence in 0..num_batches {
                if within_reason(|| ring.read_slot(sequence as u64).then_some(())).is_none() {
                    break;
                }
                assert_eq!(ring.tokens(sequence as u64).unwrap()[0], sequence as i32);
                assert!(ring.release(sequence as u64));
                most.fetch_max(sequence + 1, Ordering::Relaxed);
            }
            writers.into_iter().for_each(|writer| writer.join().unwrap());
        });
        assert_eq!(
            most_read.load(Ordering::Relaxed),
            num_batches,
            "slots are used again in some interleavings"
        );
    }
}
