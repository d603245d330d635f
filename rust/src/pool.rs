//! Vectors that are used again instead of being freed, and that an account knows of.
//!
//! A buffer of a megabyte that is freed goes back to the system, and the next one is paid for page by page as it is
//! first written: on a Zen 4 server VM that was a third of the time of decoding. Buffers move between threads, so the
//! pool is shared. Whatever a vector can hold is charged to the account for as long as the vector lives, in use or free.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use crate::account::{Account, Charge, Refused};
use crate::sync::lock;

/// Bytes that a pool keeps at most: a few pages or token lists for each of some 16 threads. More only holds memory.
const MOST_BYTES: usize = 32 << 20;
/// The part of a limit that a pool keeps at most: both pools together then hold an eighth of it for nothing.
const MOST_OF_LIMIT: usize = 16;
/// Smaller vectors are left to the allocator, which does not give them back to the system.
const LEAST_BYTES: usize = 64 << 10;
/// How much larger than what is asked for a free vector may be: else a small page would hold a large one's memory.
const MOST_TOO_LARGE: usize = 4;

/// Vectors that nobody uses at the moment.
#[derive(Debug)]
pub struct Pool<T> {
    account: Arc<Account>,
    most_bytes: usize,
    free: Mutex<Free<T>>,
    /// Where what is asked of servers before it is needed lies.
    ahead: Option<Arc<Self>>,
}

#[derive(Debug)]
struct Free<T> {
    vectors: Vec<Vec<T>>,
    num_bytes: usize,
}

impl<T> Pool<T> {
    /// An empty pool whose vectors nobody counts.
    pub fn new() -> Arc<Self> {
        Self::within(&Account::unlimited())
    }

    /// An empty pool whose vectors are charged to `account`.
    pub fn within(account: &Arc<Account>) -> Arc<Self> {
        Arc::new(Self::keeping(MOST_BYTES.min(account.limit() / MOST_OF_LIMIT), account, None))
    }

    /// The same where what is asked of servers before it is needed is charged to `ahead`, for nothing else.
    pub fn with_ahead(account: &Arc<Account>, ahead: &Arc<Account>) -> Arc<Self> {
        let most_bytes = MOST_BYTES.min(account.limit() / MOST_OF_LIMIT);
        let ahead = Arc::new(Self::keeping(ahead.limit(), ahead, None));
        Arc::new(Self::keeping(most_bytes, account, Some(ahead)))
    }

    fn keeping(most_bytes: usize, account: &Arc<Account>, ahead: Option<Arc<Self>>) -> Self {
        let free = Mutex::new(Free { vectors: Vec::new(), num_bytes: 0 });
        Self { account: account.clone(), most_bytes, free, ahead }
    }

    /// Where what is asked of servers before it is needed lies: here, where no other place is named.
    pub fn ahead(self: &Arc<Self>) -> &Arc<Self> {
        self.ahead.as_ref().unwrap_or(self)
    }

    /// Bytes of the account that no vector holds which is in use.
    pub fn num_bytes_left(&self) -> usize {
        self.account.free() + lock(&self.free).num_bytes
    }

    /// The account that vectors are charged to.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// A vector with room for `length` values, holding whatever it held when it was last used.
    ///
    /// # Errors
    /// When the account or the system has no memory for it.
    pub fn take(self: &Arc<Self>, length: usize) -> Result<Pooled<T>, Refused> {
        self.take_with(length, 0)
    }

    /// The same where `charge`, of the same account, is charged for it already; what it has more is still charged.
    ///
    /// # Errors
    /// When the system has no memory for it, or the account, where it is more than was charged.
    pub(crate) fn take_charged(
        self: &Arc<Self>,
        length: usize,
        charge: Charge,
    ) -> Result<Pooled<T>, Refused> {
        self.take_with(length, charge.into_bytes())
    }

    fn take_with(self: &Arc<Self>, length: usize, charged: usize) -> Result<Pooled<T>, Refused> {
        let values = self.take_free(length).unwrap_or_default();
        let charged = charged + num_bytes(&values);
        let mut pooled = Pooled { values, charged, pool: Some(self.clone()) };
        pooled.reserve(length)?;
        Ok(pooled)
    }

    /// The smallest free vector with room for `length` values that is not far too large.
    fn take_free(&self, length: usize) -> Option<Vec<T>> {
        let mut free = lock(&self.free);
        let most = length.saturating_mul(MOST_TOO_LARGE).max(4 * LEAST_BYTES / size_of::<T>());
        let fits = |(_, values): &(usize, &Vec<T>)| (length..=most).contains(&values.capacity());
        let (index, _) =
            free.vectors.iter().enumerate().filter(fits).min_by_key(|(_, values)| values.capacity())?;
        let values = free.vectors.remove(index);
        free.num_bytes -= num_bytes(&values);
        Some(values)
    }

    /// Frees every vector that nobody uses.
    pub fn clear(&self) {
        let mut free = lock(&self.free);
        let num_bytes = std::mem::take(&mut free.num_bytes);
        drop(std::mem::take(&mut free.vectors));
        drop(free);
        self.account.give_back(num_bytes);
        self.account.freed(num_bytes);
    }

    /// Keeps a vector, in the place of those that lie there longest: nobody has had a use for them.
    fn give_back(&self, values: Vec<T>, charged: usize) {
        let held = num_bytes(&values);
        if held < LEAST_BYTES || held > self.most_bytes || held > charged {
            drop(values);
            return self.gone(held, charged);
        }
        let mut free = lock(&self.free);
        let (mut old, mut num_old) = (0, 0);
        while free.num_bytes + held - num_old > self.most_bytes {
            num_old += num_bytes(&free.vectors[old]);
            old += 1;
        }
        let old: Vec<_> = free.vectors.drain(..old).collect();
        free.vectors.push(values);
        free.num_bytes = free.num_bytes + held - num_old;
        drop(free);
        drop(old);
        self.account.give_back(charged - held);
        self.gone(num_old, num_old);
    }

    /// Counts what went back to the allocator. What is small is soon wanted again, and has no page of its own to give back.
    fn gone(&self, held: usize, charged: usize) {
        self.account.give_back(charged);
        if held >= LEAST_BYTES {
            self.account.freed(held);
        }
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        self.clear();
    }
}

fn num_bytes<T>(values: &Vec<T>) -> usize {
    values.capacity() * size_of::<T>()
}

/// A vector that goes back to its pool, if it has one, when it is dropped.
#[derive(Debug)]
pub struct Pooled<T> {
    values: Vec<T>,
    /// Bytes of the account.
    charged: usize,
    pool: Option<Arc<Pool<T>>>,
}

impl<T> Pooled<T> {
    /// The vector itself, which goes to no pool and is no more counted.
    pub fn into_inner(mut self) -> Vec<T> {
        let values = std::mem::take(&mut self.values);
        if let Some(pool) = self.pool.take() {
            pool.account.give_back(self.charged);
        }
        values
    }

    /// An empty vector of the same pool.
    pub fn sibling(&self) -> Self {
        Self { values: Vec::new(), charged: 0, pool: self.pool.clone() }
    }

    /// The account that it is charged to.
    pub fn account(&self) -> Option<&Arc<Account>> {
        self.pool.as_ref().map(|pool| &pool.account)
    }

    /// Bytes that are charged for it.
    pub fn charged(&self) -> usize {
        self.charged
    }

    /// Charges `bytes` in all where that is more than is charged: what it is about to grow to.
    ///
    /// # Errors
    /// When the account has no room.
    pub fn cover(&mut self, bytes: usize) -> Result<(), Refused> {
        if let (Some(pool), Some(more)) = (&self.pool, bytes.checked_sub(self.charged)) {
            pool.account.grant(more)?;
            self.charged = bytes;
        }
        Ok(())
    }

    /// Makes room for `length` values in all, exactly, where there is less.
    ///
    /// # Errors
    /// When the account or the system has no memory for it.
    pub fn reserve(&mut self, length: usize) -> Result<(), Refused> {
        if length <= self.values.capacity() {
            return Ok(());
        }
        let bytes = length.saturating_mul(size_of::<T>());
        self.cover(bytes)?;
        let more = length - self.values.len();
        self.values
            .try_reserve_exact(more)
            .map_err(|source| Refused::System { wanted: bytes, reason: source.to_string() })
    }

    /// Charges what it can hold and `beside` bytes, no more and no less.
    ///
    /// # Errors
    /// When the account has no room.
    pub fn settle(&mut self, beside: usize) -> Result<(), Refused> {
        let bytes = num_bytes(&self.values) + beside;
        if bytes == self.charged {
            return Ok(());
        }
        self.cover(bytes)?;
        if let Some(pool) = &self.pool {
            pool.account.give_back(self.charged - bytes);
            self.charged = bytes;
        }
        Ok(())
    }
}

impl<T> Default for Pooled<T> {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl<T> From<Vec<T>> for Pooled<T> {
    fn from(values: Vec<T>) -> Self {
        Self { values, charged: 0, pool: None }
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
            pool.give_back(std::mem::take(&mut self.values), self.charged);
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

    fn filled(pool: &Arc<Pool<u8>>, length: usize) -> Pooled<u8> {
        let mut values = pool.take(length).unwrap();
        values.resize(length, 1);
        values
    }

    #[test]
    fn a_vector_comes_back_with_its_memory() {
        let pool = Pool::new();
        let first = filled(&pool, LEAST_BYTES);
        let address = first.as_ptr();
        drop(first);
        let again = pool.take(LEAST_BYTES).unwrap();
        assert_eq!((again.as_ptr(), again.len()), (address, LEAST_BYTES));
        assert!(pool.take(1).unwrap().is_empty(), "the pool holds each vector once");
        assert_eq!(again.into_inner().len(), LEAST_BYTES);
        assert!(pool.take(1).unwrap().is_empty(), "a vector that was taken out for good does not come back");
    }

    #[test]
    fn small_vectors_do_not_come_back_and_large_ones_do_not_serve_small_needs() {
        let pool: Arc<Pool<u8>> = Pool::new();
        drop(filled(&pool, LEAST_BYTES - 1));
        assert!(pool.take(1).unwrap().is_empty());
        drop(filled(&pool, 100 * LEAST_BYTES));
        assert!(pool.take(LEAST_BYTES).unwrap().is_empty());
        assert!(!pool.take(50 * LEAST_BYTES).unwrap().is_empty());
    }

    #[test]
    fn holds_no_more_than_its_limit() {
        let pool: Arc<Pool<u8>> = Pool::new();
        let vectors: Vec<_> = (0..8).map(|_| filled(&pool, MOST_BYTES / 4)).collect();
        drop(vectors);
        assert_eq!(lock(&pool.free).vectors.len(), 4);
    }

    #[test]
    fn what_nobody_had_a_use_for_makes_room() {
        let account = Account::new(32 * MOST_BYTES);
        let pool: Arc<Pool<u8>> = Pool::within(&account);
        drop((0..4).map(|_| filled(&pool, MOST_BYTES / 4)).collect::<Vec<_>>());
        let first = pool.take(MOST_BYTES / 4).unwrap();
        drop(filled(&pool, MOST_BYTES / 2));
        assert!(!pool.take(MOST_BYTES / 2).unwrap().is_empty());
        assert_eq!(lock(&pool.free).vectors.len(), 3);
        drop(first);
        assert_eq!(account.used(), MOST_BYTES);
        drop(filled(&pool, MOST_BYTES + 1));
        assert_eq!(account.used(), MOST_BYTES, "what is larger than all of the pool takes no place");
    }

    #[test]
    fn what_vectors_can_hold_is_charged_while_they_live() {
        let account = Account::new(64 * LEAST_BYTES);
        let pool: Arc<Pool<u8>> = Pool::within(&account);
        let mut one = filled(&pool, 2 * LEAST_BYTES);
        assert_eq!(account.used(), one.capacity());
        assert!(pool.take(63 * LEAST_BYTES).is_err());
        assert_eq!(account.used(), one.capacity(), "what was refused is not charged");
        one.cover(10 * LEAST_BYTES).unwrap();
        assert_eq!(account.used(), 10 * LEAST_BYTES);
        one.settle(5).unwrap();
        assert_eq!(account.used(), one.capacity() + 5);
        drop(one);
        assert_eq!(account.used(), 2 * LEAST_BYTES, "a free vector is still there");
        pool.clear();
        assert_eq!(account.used(), 0);
    }
}
