//! Very many short texts through everything that should agree: ten million in the long profile.

use std::thread;

use super::agreement::{SUBJECTS, check_splitters};
use super::cases::{self, PIECES};
use super::splitting::LOADED;

const TEXTS_A_BLOCK: u64 = 1000;

/// Numbers that look random, the same ones in every run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as usize % limit
    }

    /// One to eight awkward pieces, now and then any scalar.
    fn text(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..=self.below(8) {
            match self.below(16) {
                0 => text.extend(char::from_u32(self.below(0x11_0000) as u32)),
                1 => text.push_str(&PIECES[self.below(PIECES.len())].repeat(self.below(70))),
                _ => text.push_str(PIECES[self.below(PIECES.len())]),
            }
        }
        text
    }
}

#[test]
fn everything_agrees_on_very_many_texts() {
    let num_blocks: u64 = if cases::is_long() { 10_000 } else { 8 };
    let num_threads = thread::available_parallelism().map_or(1, usize::from) as u64;
    thread::scope(|scope| {
        for first in 0..num_threads {
            scope.spawn(move || {
                for block in (first..num_blocks).step_by(num_threads as usize) {
                    let mut random = Random((block + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    let texts: Vec<String> = (0..TEXTS_A_BLOCK).map(|_| random.text()).collect();
                    // Each block meets one vocabulary and one pattern, which need not be that vocabulary's.
                    SUBJECTS[block as usize % SUBJECTS.len()].check(&texts);
                    let (name, family, slow) = &LOADED[block as usize % LOADED.len()];
                    let mut slow = slow.clone();
                    texts.iter().for_each(|text| check_splitters(name, *family, &mut slow, text));
                }
            });
        }
    });
    println!("tried: {} texts", num_blocks * TEXTS_A_BLOCK);
}
