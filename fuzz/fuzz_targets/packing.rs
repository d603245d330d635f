//! Any documents, rule, B and T: a packer writes what its slow twin says, and goes on from any of its states.
//!
//! Input: rule, T, B, then the documents' lengths, one byte each (the highest bit begins a row group).
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use nanofast::packing::naive::{Grouped, Naive, Rule};
use nanofast::packing::{
    Carry, Concat, Crop, Cursor, Document, Next, OnePerRow, Packer, Pad, Progress, Rows,
};
use nanofast::ragged::TokenBatch;
use nanofast::state::Address;

fn packer(naive: &Naive) -> Box<dyn Packer> {
    match naive.rule {
        Rule::Concat => Box::new(Concat::new(naive.bos, naive.pad_id)),
        Rule::Carry => Box::new(Carry::new(7, naive.pad_id)),
        Rule::Crop => Box::new(Crop::new(7, naive.pad_id)),
        Rule::Pad => Box::new(Pad::new(naive.bos, naive.pad_id)),
        Rule::OnePerRow => Box::new(OnePerRow::new(naive.bos, naive.pad_id)),
    }
}

fn document(documents: &[Grouped], row: usize) -> Document {
    let mut tokens = TokenBatch::new();
    tokens.push(&documents[row].1);
    let address = Address { source: 0, ordinal: documents[row].0, row: row as u64 };
    Document { address, group: documents[row].0, num_bytes: 1, tokens: Arc::new(tokens), index: 0 }
}

fuzz_target!(|bytes: &[u8]| {
    let [rule, length, batch_size, lengths @ ..] = bytes else { return };
    let rule = [Rule::Concat, Rule::Carry, Rule::Crop, Rule::Pad, Rule::OnePerRow][usize::from(*rule) % 5];
    let naive = Naive { rule, bos: Some(7), pad_id: 9, row_length: 2 + usize::from(length % 40) };
    let batch_size = 1 + usize::from(batch_size % 5);
    let (mut group, mut token) = (0, 10);
    let mut documents = Vec::new();
    for length in lengths {
        group += u64::from(length >> 7);
        documents.push((
            group,
            (0..length & 127)
                .map(|_| {
                    token += 1;
                    token
                })
                .collect(),
        ));
    }
    let mut packer_at_hand = packer(&naive);
    let mut taken = 0;
    for expected in naive.batches(&documents, batch_size) {
        let mut memory = vec![0; batch_size * naive.row_length];
        let mut rows = Rows::new(&mut memory, naive.row_length, Cursor::default());
        let mut input = || match documents.len() - taken {
            0 => Next::End,
            _ => {
                taken += 1;
                Next::Document(document(&documents, taken - 1))
            }
        };
        assert_eq!(packer_at_hand.fill(&mut input, &mut rows), Progress::Full);
        let width = rows.width();
        for (row, expected) in memory.chunks(naive.row_length).zip(&expected) {
            assert!(row[..width].iter().map(|&token| token as u32).eq(expected.iter().copied()));
        }
        // Every batch comes from a packer that was restored from the state before it.
        let state = packer_at_hand.state();
        let waiting =
            state.waiting.iter().map(|held| document(&documents, held.address.row as usize)).collect();
        let mut restored = packer(&naive);
        restored.restore(&state, waiting, *packer_at_hand.ledger()).expect("a state of this packer");
        packer_at_hand = restored;
    }
});
