//! Merging of pretokens of at most 16 bytes: no heap, no list, a scan for the smallest priority.
//!
//! ```text
//! parts        0:h 1:e 2:l 3:l 4:o          fixed places; a merged part keeps its first place
//! priorities   [of 0 with the next part, of 1 with the next, …]; NONE where a part is gone or does not merge
//! alive        one bit a part
//! ```

use super::PairTable;

/// Longer pretokens go to `medium`.
pub const MAX_BYTES: usize = 16;

const NONE: u32 = u32::MAX;

/// Writes the ids of `pretoken` (1 to 16 bytes) to the front of `out`; returns how many.
///
/// # Panics
/// When `pretoken` is empty or longer than 16 bytes.
pub fn merge(pairs: &PairTable, pretoken: &[u8], out: &mut [u32; MAX_BYTES]) -> usize {
    let length = pretoken.len();
    assert!((1..=MAX_BYTES).contains(&length), "small pretokens have 1 to 16 bytes");
    let mut parts = [0; MAX_BYTES];
    let mut priorities = [NONE; MAX_BYTES];
    for (part, &byte) in parts.iter_mut().zip(pretoken) {
        *part = pairs.byte_id(byte);
    }
    for (priority, bytes) in priorities.iter_mut().zip(pretoken.windows(2)) {
        *priority = pairs.of_bytes([bytes[0], bytes[1]]);
    }
    let mut alive = (1_u32 << length) - 1;
    loop {
        let (at, priority) = smallest(&priorities);
        if priority == NONE {
            break;
        }
        let above = alive & (!1 << at);
        let next = above.trailing_zeros() as usize;
        alive &= !(1 << next);
        let behind = above & (above - 1);
        parts[at] = pairs.merged_id(priority);
        priorities[next] = NONE;
        priorities[at] = match behind {
            0 => NONE,
            _ => pairs.priority(parts[at], parts[behind.trailing_zeros() as usize % MAX_BYTES]),
        };
        let below = alive & ((1 << at) - 1);
        if below != 0 {
            let before = 31 - below.leading_zeros() as usize;
            priorities[before] = pairs.priority(parts[before], parts[at]);
        }
    }
    let mut count = 0;
    while alive != 0 {
        out[count] = parts[alive.trailing_zeros() as usize % MAX_BYTES];
        alive &= alive - 1;
        count += 1;
    }
    count
}

/// The leftmost smallest priority and its place.
#[inline(always)]
fn smallest(priorities: &[u32; MAX_BYTES]) -> (usize, u32) {
    let smallest = priorities.iter().fold(NONE, |least, &priority| least.min(priority));
    let at = priorities.iter().position(|&priority| priority == smallest).unwrap_or(0);
    (at, smallest)
}
