//! Packers against their slow twin: any documents, any interleaving of `Pending`, restored at every batch.
//!
//! `NANOFAST_TEST_LONG=1` runs many more cases.

use std::collections::VecDeque;
use std::sync::Arc;

use nanofast::packing::naive::{Grouped, Naive, Rule};
use nanofast::packing::{
    Carry, Concat, Crop, Cursor, Document, NOT_LEARNED, Next, OnePerRow, Packer, Pad, Progress, Rows,
};
use nanofast::ragged::TokenBatch;
use nanofast::state::{Address, Ledger, PackerState, Waiting};
use proptest::prelude::*;

const BOS: u32 = 7;
const PAD: u32 = 9;

fn cases(few: u32) -> ProptestConfig {
    let long = std::env::var_os("NANOFAST_TEST_LONG").is_some();
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(if long { few * 30 } else { few })
    }
}

fn packer(naive: &Naive) -> Box<dyn Packer> {
    match naive.rule {
        Rule::Concat => Box::new(Concat::new(naive.bos, naive.pad_id)),
        Rule::Carry => Box::new(Carry::new(BOS, naive.pad_id)),
        Rule::Crop => Box::new(Crop::new(BOS, naive.pad_id)),
        Rule::Pad => Box::new(Pad::new(naive.bos, naive.pad_id)),
        Rule::OnePerRow => Box::new(OnePerRow::new(naive.bos, naive.pad_id)),
    }
}

fn document(documents: &[Grouped], row: usize) -> Document {
    let mut tokens = TokenBatch::new();
    tokens.push(&documents[row].1);
    let address = Address { source: 0, ordinal: documents[row].0, row: row as u64 };
    Document { address, group: documents[row].0, num_bytes: 3, tokens: Arc::new(tokens), index: 0 }
}

/// What is known after a batch.
#[derive(Clone, Debug, PartialEq)]
struct Batch {
    rows: Vec<Vec<u32>>,
    state: PackerState,
    ledger: Ledger,
    /// Documents that the packer has taken from the input so far.
    taken: usize,
}

/// Packs `documents[taken..]` to the end; before each document the input is `Pending` as often as `pendings` says.
fn pack(
    packer: &mut dyn Packer,
    naive: &Naive,
    documents: &[Grouped],
    batch_size: usize,
    pendings: &[u8],
    mut taken: usize,
) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut waits: VecDeque<u8> = pendings.iter().copied().collect();
    loop {
        let mut memory = vec![-7; batch_size * naive.row_length];
        let mut cursor = Cursor::default();
        let width = loop {
            let mut rows = Rows::new(&mut memory, naive.row_length, cursor);
            let mut input = || match waits.front_mut() {
                Some(wait) if *wait > 0 => {
                    *wait -= 1;
                    Next::Pending
                }
                _ if taken == documents.len() => Next::End,
                _ => {
                    waits.pop_front();
                    taken += 1;
                    Next::Document(document(documents, taken - 1))
                }
            };
            let progress = packer.fill(&mut input, &mut rows);
            cursor = rows.cursor();
            match progress {
                Progress::Pending => {}
                Progress::Full => break rows.width(),
                Progress::Dry => {
                    assert!(memory.iter().all(|&token| token == -7), "a dry packer leaves the slot alone");
                    return batches;
                }
            }
        };
        let rows = memory
            .chunks(naive.row_length)
            .map(|row| row[..width].iter().map(|&token| token as u32).collect());
        let (rows, state, ledger) = (rows.collect(), packer.state(), *packer.ledger());
        batches.push(Batch { rows, state, ledger, taken });
    }
}

/// Read equals delivered, cropped and waiting; delivered, BOS and padding equal the positions of all batches.
fn check_ledger(naive: &Naive, documents: &[Grouped], batches: &[Batch]) {
    let num_rows = naive.rows(documents).len();
    let (mut positions, mut rows_so_far) = (0, 0);
    for batch in batches {
        let ledger = &batch.ledger;
        rows_so_far += batch.rows.len();
        positions += batch.rows.iter().map(Vec::len).sum::<usize>();
        let shared = if naive.rule == Rule::Concat { rows_so_far.min(num_rows) - 1 } else { 0 };
        assert_eq!(ledger.learned + ledger.masked + ledger.bos + ledger.padding, (positions - shared) as u64);
        assert_eq!(ledger.documents, batch.taken as u64);
        assert_eq!(ledger.bytes, 3 * batch.taken as u64);
        assert_eq!(
            ledger.read,
            documents[..batch.taken].iter().map(|(_, tokens)| tokens.len() as u64).sum::<u64>()
        );
        let added = usize::from(naive.rule == Rule::Concat && naive.bos.is_some()) as u64;
        let mut waiting = 0;
        for held in &batch.state.waiting {
            let length = documents[held.address.row as usize].1.len() as u64;
            let used = held.skip_tokens + u64::from(naive.rule == Rule::Concat);
            waiting += length - used.saturating_sub(added);
        }
        assert_eq!(ledger.waiting(), waiting);
    }
    if naive.rule == Rule::Carry {
        let last = batches.last().map(|batch| batch.ledger).unwrap_or_default();
        let read: u64 = documents.iter().map(|(_, tokens)| tokens.len() as u64).sum();
        assert_eq!((last.learned, last.waiting(), last.cropped), (read, 0, 0));
    }
}

fn restored(naive: &Naive, documents: &[Grouped], state: &PackerState, ledger: Ledger) -> Box<dyn Packer> {
    let mut packer = packer(naive);
    let waiting = state.waiting.iter().map(|held| document(documents, held.address.row as usize)).collect();
    packer.restore(state, waiting, ledger).expect("a state of this packer");
    packer
}

fn check(naive: &Naive, documents: &[Grouped], batch_size: usize, pendings: &[u8], resumes: usize) {
    let expected = naive.batches(documents, batch_size);
    let batches = pack(&mut *packer(naive), naive, documents, batch_size, pendings, 0);
    let found: Vec<_> = batches.iter().map(|batch| batch.rows.clone()).collect();
    assert_eq!(found, expected);
    check_ledger(naive, documents, &batches);
    for (index, batch) in batches.iter().enumerate().step_by(batches.len() / resumes.max(1) + 1) {
        let mut packer = restored(naive, documents, &batch.state, batch.ledger);
        assert_eq!(packer.state(), batch.state, "a state that was loaded is the same when saved");
        let rest = pack(&mut *packer, naive, documents, batch_size, &[], batch.taken);
        assert_eq!(rest, batches[index + 1..], "restored after batch {index}");
    }
}

prop_compose! {
    fn rule()(rule in prop::sample::select(vec![Rule::Concat, Rule::Carry, Rule::Crop, Rule::Pad, Rule::OnePerRow]),
              own_bos in any::<bool>(), sequence_length in 1..24_usize) -> Naive {
        let brings_bos = own_bos && !matches!(rule, Rule::Carry | Rule::Crop);
        Naive { rule, bos: (!brings_bos).then_some(BOS), pad_id: PAD, row_length: sequence_length + 1 }
    }
}

/// Documents whose tokens are all different; some are empty, some long, some masked where they bring their own BOS.
fn documents(lengths: Vec<(u16, bool)>, masked: bool) -> Vec<Grouped> {
    let (mut group, mut token) = (0, 100);
    let mut documents = Vec::new();
    for (length, next_group) in lengths {
        group += u64::from(next_group);
        let tokens = (0..length).map(|_| {
            token += 1;
            if masked && token % 3 == 0 { token | NOT_LEARNED } else { token }
        });
        documents.push((group, tokens.collect()));
    }
    documents
}

proptest! {
    #![proptest_config(cases(150))]
    #[test]
    fn packs_as_the_slow_twin_and_goes_on_after_every_batch(
        naive in rule(),
        lengths in prop::collection::vec((prop_oneof![4 => 0..12_u16, 1 => 0..90_u16], prop::bool::weighted(0.2)), 0..70),
        batch_size in 1..5_usize,
        pendings in prop::collection::vec(0..3_u8, 0..70),
    ) {
        let documents = documents(lengths, naive.bos.is_none());
        check(&naive, &documents, batch_size, &pendings, usize::MAX);
    }
}

proptest! {
    #![proptest_config(cases(10))]
    #[test]
    fn packs_as_the_slow_twin_when_buffers_overflow_and_documents_are_overtaken(
        naive in rule(),
        lengths in prop::collection::vec((prop_oneof![9 => 0..9_u16, 1 => 0..40_u16], prop::bool::weighted(0.005)), 1100..3000),
        batch_size in 1..9_usize,
        pendings in prop::collection::vec(0..3_u8, 0..3000),
    ) {
        let documents = documents(lengths, naive.bos.is_none());
        check(&naive, &documents, batch_size, &pendings, 4);
    }
}

#[test]
fn packs_a_row_as_it_reads() {
    let documents = [(0, vec![1, 1, 1]), (0, vec![2]), (0, vec![3; 5])];
    let pad = PAD | NOT_LEARNED;
    let rows = |rule| {
        let naive = Naive { rule, bos: Some(BOS), pad_id: PAD, row_length: 5 };
        let batches = pack(&mut *packer(&naive), &naive, &documents, 1, &[], 0);
        batches.into_iter().flat_map(|batch| batch.rows).collect::<Vec<_>>()
    };
    assert_eq!(rows(Rule::Concat), [[7, 1, 1, 1, 7], [7, 2, 7, 3, 3], [3, 3, 3, 3, pad]]);
    assert_eq!(rows(Rule::Carry), [[7, 1, 1, 1, 7], [7, 2, 7, 3, 3], [7, 3, 3, 3, pad]]);
    assert_eq!(rows(Rule::Crop), [[7, 1, 1, 1, 7], [7, 3, 3, 3, 3]]);
    assert_eq!(rows(Rule::Pad), [[7, 3, 3, 3, 3], [7, 1, 1, 1, pad], [7, 2, pad, pad, pad]]);
    assert_eq!(rows(Rule::OnePerRow), [vec![7, 1, 1, 1], vec![7, 2], vec![7, 3, 3, 3, 3]]);
}

#[test]
fn carry_refers_to_few_documents_among_the_last_768() {
    let lengths = (0..5000).map(|i| (if i % 700 == 3 { 4000 } else { i % 9 }, false)).collect();
    let documents = documents(lengths, false);
    let naive = Naive { rule: Rule::Carry, bos: Some(BOS), pad_id: PAD, row_length: 9 };
    for batch in pack(&mut *packer(&naive), &naive, &documents, 4, &[], 0) {
        assert!(batch.state.waiting.len() <= 256);
        let oldest = batch.state.waiting.first().map_or(batch.taken as u64, |held| held.address.row);
        assert!(batch.taken as u64 - oldest <= 768 + 36);
    }
}

#[test]
fn crop_lets_go_of_old_batches_though_some_of_their_documents_wait_on() {
    let naive = Naive { rule: Rule::Crop, bos: Some(BOS), pad_id: PAD, row_length: 9 };
    let mut packer = packer(&naive);
    let (mut row, mut batches, mut alive) = (0, Vec::new(), 0);
    let mut memory = vec![0; 4 * naive.row_length];
    // In each batch one document of middling length waits for ever: there is always one that fits better.
    let mut current = Arc::new(TokenBatch::new());
    for _ in 0..3000 {
        let mut input = || {
            let index = row % 32;
            if index == 0 {
                let mut tokens = TokenBatch::new();
                (0..32)
                    .for_each(|index| tokens.push(&[5; 8][..if index == 7 && row < 9000 { 4 } else { 8 }]));
                current = Arc::new(tokens);
                batches.push(Arc::downgrade(&current));
            }
            row += 1;
            let address = Address { source: 0, ordinal: 0, row: row as u64 };
            Next::Document(Document { address, group: 0, num_bytes: 0, tokens: current.clone(), index })
        };
        let mut rows = Rows::new(&mut memory, naive.row_length, Cursor::default());
        assert_eq!(packer.fill(&mut input, &mut rows), Progress::Full);
        alive = batches.iter().filter(|batch| batch.strong_count() > 0).count();
    }
    let oldest = packer.state().waiting[0].arrival;
    assert!(oldest < 100, "the oldest waits since {oldest}");
    assert!(row > 10_000 && alive <= (2000 + 256) / 32 + 2, "{alive} of {} batches", batches.len());
}

#[test]
fn continues_a_document_from_the_middle_of_its_text() {
    let documents = [(0, (1..=20).collect::<Vec<u32>>())];
    for (rule, skip_tokens) in [(Rule::Concat, 5), (Rule::Carry, 4)] {
        let naive = Naive { rule, bos: Some(BOS), pad_id: PAD, row_length: 5 };
        let address = Address { source: 0, ordinal: 0, row: 0 };
        let waiting = Waiting { address, byte_offset: 40, skip_tokens, arrival: 0 };
        let state = PackerState { arrivals: 1, waiting: vec![waiting] };
        let mut packer = packer(&naive);
        packer.restore(&state, vec![document(&documents, 0)], Ledger::default()).unwrap();
        assert_eq!(packer.state(), state);
        let batches = pack(&mut *packer, &naive, &documents, 1, &[], 1);
        let waiting = batches[0].state.waiting[0];
        assert_eq!((waiting.byte_offset, waiting.skip_tokens), (40, skip_tokens + 4));
    }
}

#[test]
fn refuses_states_that_no_packer_leaves_behind() {
    let documents = [(0, vec![1, 2, 3]), (0, vec![4])];
    let held = |row, skip_tokens, arrival| Waiting {
        address: Address { source: 0, ordinal: 0, row },
        byte_offset: 0,
        skip_tokens,
        arrival,
    };
    let refused = |rule, waiting: Vec<Waiting>, read: &[usize]| {
        let naive = Naive { rule, bos: Some(BOS), pad_id: PAD, row_length: 5 };
        let read = read.iter().map(|&row| document(&documents, row)).collect();
        let state = PackerState { arrivals: 2, waiting };
        packer(&naive).restore(&state, read, Ledger::default()).unwrap_err().to_string()
    };
    for rule in [Rule::Concat, Rule::Carry, Rule::Crop, Rule::Pad] {
        assert!(refused(rule, vec![held(0, 9, 0)], &[0]).contains("continued at token 9"));
        assert!(refused(rule, vec![held(0, 0, 0)], &[1]).contains("found"));
        assert!(refused(rule, vec![held(0, 0, 0)], &[]).contains("1 documents are to be continued, 0"));
    }
    for rule in [Rule::Carry, Rule::Pad, Rule::Crop] {
        assert!(refused(rule, vec![held(0, 0, 1), held(1, 0, 1)], &[0, 1]).contains("arrival numbers"));
        assert!(refused(rule, vec![held(0, 0, 5)], &[0]).contains("arrival numbers"));
    }
    assert!(refused(Rule::OnePerRow, vec![], &[0]).contains("0 documents are to be continued, 1"));
}
