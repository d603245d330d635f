//! Vectors that are used again instead of being freed.
//!
//! A buffer of a megabyte that is freed goes back to the system, and the next one is paid for page by page as it is
//! first written: on a Zen 4 server VM that was a third of the time of decoding. Buffers move between threads, so the
//! pool is shared; what is in it counts as memory of its owner and goes with it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// Bytes that a pool keeps at most: a few pages or token lists for each of some 16 threads. More only holds memory.
const MOST_BYTES: usize = 32 << 20;
/// Smaller vectors are left to the allocator, which does not give them back to the system: in a pool each of them would
/// in time grow to the size of the largest that was ever needed.
const LEAST_BYTES: usize = 64 << 10;

/// Vectors that nobody uses at the moment.
#[derive(Debug)]
pub struct Pool<T> {
    free: Mutex<Free<T>>,
}

#[derive(Debug)]
struct Free<T> {
    vectors: Vec<Vec<T>>,
    num_bytes: usize,
}

impl<T> Pool<T> {
    /// An empty pool.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(Free { vectors: Vec::new(), num_bytes: 0 }) })
    }

    /// A vector, with whatever it held when it was last used.
    pub fn take(self: &Arc<Self>) -> Pooled<T> {
        let mut free = lock(&self.free);
        let values = free.vectors.pop().unwrap_or_default();
        free.num_bytes -= num_bytes(&values);
        Pooled { values, pool: Some(self.clone()) }
    }

    fn give_back(&self, values: Vec<T>) {
        let mut free = lock(&self.free);
        let added = num_bytes(&values);
        if added >= LEAST_BYTES && free.num_bytes + added <= MOST_BYTES {
            free.num_bytes += added;
            free.vectors.push(values);
        }
    }
}

fn num_bytes<T>(values: &Vec<T>) -> usize {
    values.capacity() * size_of::<T>()
}

/// A vector that goes back to its pool, if it has one, when it is dropped.
#[derive(Debug)]
pub struct Pooled<T> {
    values: Vec<T>,
    pool: Option<Arc<Pool<T>>>,
}

impl<T> Pooled<T> {
    /// The vector itself, which goes to no pool.
    pub fn into_inner(mut self) -> Vec<T> {
        self.pool = None;
        std::mem::take(&mut self.values)
    }
}

impl<T> From<Vec<T>> for Pooled<T> {
    fn from(values: Vec<T>) -> Self {
        Self { values, pool: None }
    }
}

impl<T: Clone> Clone for Pooled<T> {
    fn clone(&self) -> Self {
        self.values.clone().into()
    }
}

impl<T> Drop for Pooled<T> {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.give_back(std::mem::take(&mut self.values));
        }
    }
}

impl<T> Deref for Pooled<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.values
    }
}

impl<T> DerefMut for Pooled<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.values
    }
}

impl<T> AsRef<[T]> for Pooled<T> {
    fn as_ref(&self) -> &[T] {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_comes_back_with_its_memory() {
        let pool = Pool::new();
        let mut first = pool.take();
        first.extend([1u8; LEAST_BYTES]);
        let address = first.as_ptr();
        drop(first);
        let again = pool.take();
        assert_eq!((again.as_ptr(), again.len()), (address, LEAST_BYTES));
        assert!(pool.take().is_empty(), "the pool holds each vector once");
        assert_eq!(again.into_inner().len(), LEAST_BYTES);
        assert!(pool.take().is_empty(), "a vector that was taken out for good does not come back");
    }

    #[test]
    fn small_vectors_do_not_come_back() {
        let pool: Arc<Pool<u8>> = Pool::new();
        drop(Pooled { values: vec![0; LEAST_BYTES - 1], pool: Some(pool.clone()) });
        assert!(pool.take().is_empty());
    }

    #[test]
    fn holds_no_more_than_its_limit() {
        let pool: Arc<Pool<u8>> = Pool::new();
        let vectors: Vec<_> =
            (0..8).map(|_| Pooled { values: vec![0; MOST_BYTES / 4], pool: Some(pool.clone()) }).collect();
        drop(vectors);
        assert_eq!(lock(&pool.free).vectors.len(), 4);
    }
}
