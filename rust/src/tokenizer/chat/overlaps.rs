//! Which tokens of a text are learned of which only parts are: those that reach into one.
//!
//! ```text
//! text      assistant\n | hello | <end>       ends 10 (not learned), 15 (learned)
//! tokens    [assistant][\nhe][llo]            not learned, learned, learned
//! ```

/// Whether stretches of a text, taken one after the other, reach into what is learned.
#[derive(Debug)]
pub(super) struct Overlaps<'a> {
    /// Ends of parts, and whether they are learned.
    ends: &'a [(usize, bool)],
    /// End of the last stretch.
    position: usize,
    /// The first of `ends` that lies behind `position`.
    at: usize,
}

impl<'a> Overlaps<'a> {
    /// For a text that begins at `start`, in the coordinates of `ends`.
    pub(super) fn new(ends: &'a [(usize, bool)], start: usize) -> Self {
        Self { ends, position: start, at: 0 }
    }

    /// Whether the next `length` bytes do.
    pub(super) fn next(&mut self, length: usize) -> bool {
        let end = self.position + length;
        let mut learned = false;
        while let Some(&(mark, is_learned)) = self.ends.get(self.at) {
            learned |= is_learned;
            if mark > end {
                break;
            }
            self.at += 1;
            if mark == end {
                break;
            }
        }
        self.position = end;
        learned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_learned_when_a_part_of_it_is() {
        let ends = [(110, false), (115, true), (118, false)];
        let mut overlaps = Overlaps::new(&ends, 100);
        let found: Vec<bool> = [9, 4, 2, 1, 2].into_iter().map(|length| overlaps.next(length)).collect();
        assert_eq!(found, [false, true, true, false, false]);
    }
}
