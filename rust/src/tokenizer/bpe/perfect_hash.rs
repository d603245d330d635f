//! A hash without collisions over keys that are known beforehand, so that a look-up has no loop and reads one place.
//!
//! ```text
//! key ─ multiply ─→ bucket (its high bits) ─→ displacement ─ multiply ─→ slot       about four keys share a displacement
//! ```
//! Displacements are searched for one bucket after another, the fullest first: hash, displace and compress.

/// Where each of a set of keys has a slot of its own. Other keys have one too, which may be anybody's.
#[derive(Debug)]
pub(super) struct PerfectHash {
    displacements: Vec<u16>,
    bucket_shift: u32,
    slot_shift: u32,
}

/// Keys on average that share a displacement: 16 bits are searched through for about 200 keys in a million at 6, never at 4.
const KEYS_PER_BUCKET: usize = 4;

/// Doublings of the slots before the search is given up: keys that do not spread then were made for it.
const MAX_DOUBLINGS: u32 = 3;

impl PerfectHash {
    /// A hash over distinct `keys` of at most 40 bits; none where they do not spread.
    pub(super) fn new(keys: &[u64]) -> Option<Self> {
        // A load between 0.42 and 0.85: fuller tables take long to build.
        let bits = (keys.len().max(8) * 20 / 17).next_power_of_two().trailing_zeros();
        (bits..=bits + MAX_DOUBLINGS).find_map(|bits| Self::with_slots(keys, bits))
    }

    /// Slots, a power of two.
    pub(super) fn num_slots(&self) -> usize {
        1 << (32 - self.slot_shift)
    }

    /// The slot of `key`, and bits of it that the slot does not follow from.
    #[inline(always)]
    pub(super) fn place(&self, key: u64) -> (usize, u8) {
        let mixed = mix(key);
        let displacement = self.displacements[(mixed >> self.bucket_shift) as usize];
        (self.displaced(mixed, displacement), (mixed >> 40) as u8)
    }

    #[inline(always)]
    fn displaced(&self, mixed: u64, displacement: u16) -> usize {
        (((mixed >> 8) as u32).wrapping_mul(2 * u32::from(displacement) + 1) >> self.slot_shift) as usize
    }

    fn with_slots(keys: &[u64], bits: u32) -> Option<Self> {
        let bucket_bits = (keys.len() / KEYS_PER_BUCKET).max(2).next_power_of_two().trailing_zeros();
        let displacements = vec![0; 1 << bucket_bits];
        let mut hash = Self { displacements, bucket_shift: 64 - bucket_bits, slot_shift: 32 - bits };
        let (ends, members) = hash.buckets(keys);
        let bucket = |at: u32| {
            let start = if at == 0 { 0 } else { ends[at as usize - 1] };
            &members[start as usize..ends[at as usize] as usize]
        };
        let mut order: Vec<u32> = (0..ends.len() as u32).filter(|&at| !bucket(at).is_empty()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(bucket(at).len()));
        let mut taken = vec![0_u64; hash.num_slots().div_ceil(64)];
        for at in order {
            let fits = |&displacement: &u16| hash.take(bucket(at), displacement, &mut taken);
            hash.displacements[at as usize] = (0..=u16::MAX).find(fits)?;
        }
        Some(hash)
    }

    /// The mixed keys of each bucket, one bucket after the other, and where each ends.
    fn buckets(&self, keys: &[u64]) -> (Vec<u32>, Vec<u64>) {
        let mut ends = vec![0_u32; self.displacements.len()];
        let mixed = || keys.iter().map(|&key| mix(key));
        mixed().for_each(|it| ends[(it >> self.bucket_shift) as usize] += 1);
        let mut total = 0;
        for end in &mut ends {
            total += std::mem::replace(end, total);
        }
        let mut members = vec![0; keys.len()];
        for it in mixed() {
            let end = &mut ends[(it >> self.bucket_shift) as usize];
            members[*end as usize] = it;
            *end += 1;
        }
        (ends, members)
    }

    /// Takes the slots of `bucket` under `displacement`, if all are free.
    fn take(&self, bucket: &[u64], displacement: u16, taken: &mut [u64]) -> bool {
        for (count, &mixed) in bucket.iter().enumerate() {
            let slot = self.displaced(mixed, displacement);
            if taken[slot / 64] >> (slot % 64) & 1 == 1 {
                // Those before it are free again.
                for &mixed in &bucket[..count] {
                    let slot = self.displaced(mixed, displacement);
                    taken[slot / 64] &= !(1 << (slot % 64));
                }
                return false;
            }
            taken[slot / 64] |= 1 << (slot % 64);
        }
        true
    }
}

#[inline(always)]
fn mix(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
