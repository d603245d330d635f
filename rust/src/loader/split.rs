//! A row of tokens → inputs and targets, shifted by one.
//!
//! ```text
//! row      5 -6 7 8        inputs  5 6 7        targets  -1 7 8        the highest bit: not learned
//! ```

use crate::packing::NOT_LEARNED;

/// Writes inputs and targets of a row that is one token longer; targets that are not learned are -1.
///
/// # Panics
/// When one of them is of another length.
pub(super) fn split_row(row: &[i32], inputs: &mut [i32], targets: &mut [i64]) {
    assert!(row.len() == inputs.len() + 1 && targets.len() == inputs.len(), "a row is one token longer");
    for ((input, target), pair) in inputs.iter_mut().zip(targets).zip(row.windows(2)) {
        *input = pair[0] & !NOT_LEARNED as i32;
        *target = i64::from(pair[1].max(-1)); // negative is not learned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_every_length_are_split_alike() {
        for length in 0..70 {
            let row: Vec<i32> =
                (0..=length).map(|index| if index % 3 == 1 { index | i32::MIN } else { index }).collect();
            let (mut inputs, mut targets) = (vec![7; length as usize], vec![7; length as usize]);
            split_row(&row, &mut inputs, &mut targets);
            let learned = |&token: &i32| if token < 0 { -1 } else { i64::from(token) };
            assert_eq!(inputs, (0..length).collect::<Vec<_>>());
            assert_eq!(targets, row[1..].iter().map(learned).collect::<Vec<_>>());
        }
    }
}
