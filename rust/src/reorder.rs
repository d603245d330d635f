//! Finished out of order → delivered in order.
//!
//! ```
//! # use nanofast::reorder::Reorder;
//! let mut pieces = Reorder::new();
//! pieces.push(1, "b");
//! assert_eq!(pieces.pop(), None);
//! pieces.push(0, "a");
//! assert_eq!((pieces.pop(), pieces.pop()), (Some("a"), Some("b")));
//! ```

use std::collections::VecDeque;

/// A queue that is filled by sequence number and emptied in sequence.
#[derive(Debug)]
pub struct Reorder<T> {
    next: u64,
    pieces: VecDeque<Option<T>>,
}

impl<T> Default for Reorder<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Reorder<T> {
    /// An empty queue that begins at sequence number 0.
    pub fn new() -> Self {
        Self { next: 0, pieces: VecDeque::new() }
    }

    /// Whether no piece waits.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Puts in the piece with this sequence number.
    ///
    /// # Panics
    /// When the piece was put in before.
    pub fn push(&mut self, sequence: u64, piece: T) {
        assert!(sequence >= self.next, "a sequence number is used once");
        let index = (sequence - self.next) as usize;
        if self.pieces.len() <= index {
            self.pieces.resize_with(index + 1, || None);
        }
        assert!(self.pieces[index].replace(piece).is_none(), "a sequence number is used once");
    }

    /// Takes the next piece in sequence, if it is there.
    pub fn pop(&mut self) -> Option<T> {
        let piece = self.pieces.front_mut()?.take()?;
        self.pieces.pop_front();
        self.next += 1;
        Some(piece)
    }
}
