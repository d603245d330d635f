//! One text through everything that should agree on it: splitters, encoders, their slow twins, and tiktoken-rs as a third
//! opinion. The tests and the fuzz target share this file.

use std::sync::{LazyLock, Mutex, PoisonError};

use nanofast::tokenizer::bpe::{PairTable, naive};
use nanofast::tokenizer::pretokenize::{Family, FamilySplitter, Implementation, RegexSplitter, Starts};
use nanofast::tokenizer::{Encoder, Tokenizer};
use tiktoken_rs::CoreBPE;

type Load = fn() -> anyhow::Result<CoreBPE>;

const BUNDLED: [(&str, Load); 4] = [
    ("r50k_base", tiktoken_rs::r50k_base),
    ("p50k_base", tiktoken_rs::p50k_base),
    ("cl100k_base", tiktoken_rs::cl100k_base),
    ("o200k_base", tiktoken_rs::o200k_base),
];

/// A bundled vocabulary in every way that it can be used. Its encoders live on, so that their caches hold what came before.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) peer: CoreBPE,
    family: Family,
    slow: RegexSplitter,
    pairs: PairTable,
    encoders: Mutex<[Encoder; 3]>,
}

pub(crate) static SUBJECTS: LazyLock<Vec<Subject>> = LazyLock::new(|| {
    let load = |(name, load): (&'static str, Load)| {
        let tokenizer = Tokenizer::from_name(name).expect("it is bundled");
        let definition = tokenizer.definition();
        Subject {
            name,
            family: Family::of(&definition.pattern).expect("it has a splitter of its own"),
            slow: RegexSplitter::new(name, &definition.pattern).expect("its pattern compiles"),
            pairs: PairTable::new(name, &definition.vocabulary, &definition.merges).expect("it is bundled"),
            encoders: Mutex::new(encoders(&tokenizer)),
            peer: load().expect("it is bundled"),
            tokenizer,
        }
    };
    BUNDLED.map(load).into()
});

/// Caches of every kind: none, so small that they are full at once, and ample ones.
pub(crate) fn encoders(tokenizer: &Tokenizer) -> [Encoder; 3] {
    [tokenizer.encoder_with(0), tokenizer.encoder_with(1 << 16), tokenizer.encoder_with(8 << 20)]
}

/// All starts, through a buffer so small that it fills again and again.
pub(crate) fn starts(splitter: FamilySplitter, text: &str) -> Vec<usize> {
    let (mut starts, mut at, mut buffer) = (Vec::new(), 0, [0; 70]);
    while at < text.len() {
        let mut part = Starts::new(&mut buffer);
        let next = splitter.fill(text, at, &mut part);
        let count = part.len();
        assert!(next > at, "no progress at {at} of {text:?}");
        starts.extend(buffer[..count].iter().map(|&start| at + start as usize));
        at = next;
    }
    starts
}

/// Every implementation of `family` cuts `text` where the expressions do.
pub(crate) fn check_splitters(name: &str, family: Family, slow: &mut RegexSplitter, text: &str) {
    let pieces = slow.split(text).expect("the expressions match any text of this length");
    assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start), "{name} leaves gaps in {text:?}");
    let expected: Vec<usize> = pieces.iter().map(|piece| piece.start).collect();
    for implementation in Implementation::available() {
        let splitter = FamilySplitter::with(family, implementation).expect("it is available");
        assert_eq!(starts(splitter, text), expected, "{name} {implementation:?} {text:?}");
    }
}

impl Subject {
    /// The ids of `text` by definition: its expression, a whole pretoken that is a token, else one merge after the other.
    fn by_definition(&self, slow: &mut RegexSplitter, text: &str) -> Vec<u32> {
        let vocabulary = &self.tokenizer.definition().vocabulary;
        let mut ids = Vec::new();
        for piece in slow.split(text).expect("the expression matches any text of this length") {
            let pretoken = &text.as_bytes()[piece.clone()];
            match vocabulary.id(pretoken) {
                Some(id) => ids.push(id),
                None => naive::merge(&self.pairs, pretoken, &mut ids),
            }
        }
        ids
    }

    /// Everything agrees on the ids of `texts`, one after the other.
    pub(crate) fn check(&self, texts: &[String]) {
        let mut encoders = self.encoders.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slow = self.slow.clone();
        for text in texts {
            check_splitters(self.name, self.family, &mut slow, text);
            let expected = self.by_definition(&mut slow, text);
            assert_eq!(self.peer.encode_ordinary(text), expected, "tiktoken-rs, {} {text:?}", self.name);
            for encoder in &mut *encoders {
                let mut ids = Vec::new();
                encoder.encode(text.as_bytes(), &mut ids).expect("the text is UTF-8");
                assert_eq!(ids, expected, "{} {text:?}", self.name);
                assert_eq!(encoder.count(None, text), Ok(ids.len()), "{} {text:?}", self.name);
            }
            assert_eq!(self.tokenizer.decode_bytes(&expected).ok().as_deref(), Some(text.as_bytes()));
            let spans = self.tokenizer.spans(None, text, &expected).expect("nothing is normalized");
            let borders = spans
                .iter()
                .scan(0, |end, span| (span.start == std::mem::replace(end, span.end)).then_some(span.end));
            assert_eq!(borders.last().unwrap_or(0), text.len(), "spans of {text:?}");
            assert_eq!(spans.len(), expected.len());
        }
    }
}
