//! The account of a loader's memory: whoever holds something of size asks first, and gives back when it lets go.
//!
//! ```text
//! limit   [ring | caches | pages | tokens: queued, in packers | free vectors ....... free ]
//!                                                             ▲ charge: granted, or refused with what it would take
//! ```
//! A charge is granted before the memory is allocated, for the most that it may become, and is lowered once the size is
//! known. What is granted never exceeds the limit. Nothing waits here: whoever is refused gives up what it holds, and the
//! pipeline decides who is to go on.

use std::fmt;
use std::sync::Arc;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Place};

/// Bytes that the allocator may keep of those that were freed: half of the slack that is stated.
const TRIM_BYTES: usize = 32 << 20;

/// Gives free memory back to the system. glibc keeps what threads free, each for itself: with 16 threads a loader whose limit
/// was 256 MiB took up to 523 MiB more; with this and `share_heaps` 33 at most (docs/LOG.md).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "a function of the C library without a safe face")]
fn trim() {
    // SAFETY: it takes a number, touches no memory that is in use, and any thread may call it at any time.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

/// Lets the threads of this process share eight heaps; where there are more already, these are shared. glibc gives each
/// thread one of its own, up to eight a core, and keeps what is free at the end of each: with 16 threads that was up to
/// 119 MiB over a limit of 256, in spite of `trim` (docs/LOG.md).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "a function of the C library without a safe face")]
pub fn share_heaps() {
    static ONCE: Once = Once::new();
    // SAFETY: it sets a number that glibc reads when a thread first allocates, and takes glibc's lock for it. It is called
    // once, before any thread of a loader's has begun; another thread that begins at that moment sees the old number or the
    // new one, both of which are right.
    ONCE.call_once(|| unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 8);
    });
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn share_heaps() {}

/// Bytes granted within a limit. All counts are `Relaxed`: no other memory depends on them.
#[derive(Debug)]
pub struct Account {
    limit: usize,
    used: AtomicUsize,
    peak: AtomicUsize,
    /// Bytes given back to the allocator since it last gave them back to the system.
    freed: AtomicUsize,
}

/// Memory that was not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The limit leaves no room for it.
    Limit {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes granted to others at that moment.
        held: usize,
        /// The limit.
        limit: usize,
    },
    /// The system has none.
    System {
        /// Bytes asked for.
        wanted: usize,
        /// What the system said.
        reason: String,
    },
}

impl Refused {
    /// The crate's error, for memory that `place` needs.
    pub fn at(self, place: Place) -> Error {
        match self {
            Self::Limit { wanted, held, limit } => Error::MemoryLimit { place, wanted, held, limit },
            Self::System { wanted, reason } => {
                Error::Resource { what: "memory", reason: format!("{wanted} bytes for {place}: {reason}") }
            }
        }
    }

    /// The same for `bytes` more, which were granted and are given back.
    #[must_use]
    pub fn with(self, bytes: usize) -> Self {
        match self {
            Self::Limit { wanted, held, limit } => {
                Self::Limit { wanted: wanted.saturating_add(bytes), held: held.saturating_sub(bytes), limit }
            }
            other => other,
        }
    }

    /// The same with `bytes` more that are known to be asked for next.
    #[must_use]
    pub fn followed_by(mut self, bytes: usize) -> Self {
        if let Self::Limit { wanted, .. } = &mut self {
            *wanted = wanted.saturating_add(bytes);
        }
        self
    }
}

impl Account {
    /// An account of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            freed: AtomicUsize::new(0),
        })
    }

    /// An account that refuses nothing.
    pub fn unlimited() -> Arc<Self> {
        Self::new(usize::MAX)
    }

    /// Grants `bytes`, to be given back by hand.
    pub(crate) fn grant(&self, bytes: usize) -> Result<(), Refused> {
        let within = |used: usize| used.checked_add(bytes).filter(|&used| used <= self.limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within) {
            Ok(before) => {
                debug_assert!(before + bytes <= self.limit, "what is granted stays within the limit");
                self.peak.fetch_max(before + bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(held) => Err(Refused::Limit { wanted: bytes, held, limit: self.limit }),
        }
    }

    /// Takes back `bytes` that were granted.
    pub(crate) fn give_back(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "more was given back than was granted");
    }

    /// Notes that vectors of `bytes` went back to the allocator, and lets it give them back to the system when they are many.
    pub(crate) fn freed(&self, bytes: usize) {
        if self.freed.fetch_add(bytes, Ordering::Relaxed) + bytes >= TRIM_BYTES
            && self.freed.swap(0, Ordering::Relaxed) >= TRIM_BYTES
        {
            trim();
        }
    }

    /// Grants `bytes` for as long as the charge lives.
    ///
    /// # Errors
    /// When the limit leaves no room.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Result<Charge, Refused> {
        self.grant(bytes)?;
        Ok(Charge { account: self.clone(), bytes })
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes granted at the moment.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The most that was granted at any moment.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Bytes that could be granted.
    pub fn free(&self) -> usize {
        self.limit - self.used()
    }
}

/// Bytes that are granted until it is dropped.
pub struct Charge {
    account: Arc<Account>,
    bytes: usize,
}

impl Charge {
    /// Bytes granted.
    pub fn num_bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what it has more than `bytes`.
    pub(crate) fn lower(&mut self, bytes: usize) {
        let most = self.bytes.min(bytes);
        self.account.give_back(self.bytes - most);
        self.bytes = most;
    }

    /// The same, to be given back by hand.
    pub(crate) fn into_bytes(mut self) -> usize {
        std::mem::take(&mut self.bytes)
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Charge({})", self.bytes)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_up_to_the_limit_and_says_what_more_would_take() {
        let account = Account::new(100);
        let half = account.charge(60).unwrap();
        assert_eq!(account.charge(41).unwrap_err(), Refused::Limit { wanted: 41, held: 60, limit: 100 });
        let rest = account.charge(40).unwrap();
        assert_eq!((account.used(), account.free()), (100, 0));
        drop(half);
        assert_eq!((account.used(), account.peak()), (40, 100));
        drop(rest);
        assert_eq!(account.used(), 0);
        assert!(account.charge(usize::MAX).is_err(), "a sum beyond what can be counted is refused");
    }

    #[test]
    fn threads_together_stay_within_the_limit() {
        let account = Account::new(1000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for bytes in (1..400).cycle().take(4000) {
                        drop(account.charge(bytes));
                    }
                });
            }
        });
        assert_eq!(account.used(), 0);
        assert!(account.peak() <= 1000);
    }
}
