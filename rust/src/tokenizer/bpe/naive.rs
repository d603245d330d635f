//! Merging as it is defined, and as slow: the oracle of every other merge.

use super::PairTable;

/// Appends the ids of `pretoken`: begin with its bytes; while any two neighbours merge, merge those with the smallest
/// priority, the leftmost of equals.
pub fn merge(pairs: &PairTable, pretoken: &[u8], out: &mut Vec<u32>) {
    let mut ids: Vec<u32> = pretoken.iter().map(|&byte| pairs.byte_id(byte)).collect();
    loop {
        let merge_at =
            |at: usize| pairs.get(ids[at], ids[at + 1]).map(|merge| (merge.priority, at, merge.id));
        let Some((_, at, id)) = (0..ids.len().saturating_sub(1)).filter_map(merge_at).min() else { break };
        ids[at] = id;
        ids.remove(at + 1);
    }
    out.extend_from_slice(&ids);
}
