//! Training a byte-level BPE vocabulary: texts → counted pretokens → merges → a tokenizer.
//!
//! ```text
//! texts ─split─→ PretokenCounts (one a thread) ─absorb─→ one ─train─→ merges ─→ Tokenizer
//! ```
//! ```
//! use nanofast::tokenizer::{PretokenCounts, Training};
//! let training = Training { pattern: r"\S+|\s+".into(), vocab_size: 258, specials: vec!["<|bos|>".into()] };
//! let mut counts = PretokenCounts::new(&training, usize::MAX)?;
//! counts.add(b"low lower lowest")?;
//! let tokenizer = training.run(counts, |_| true)?.expect("nobody interrupts");
//! assert_eq!(tokenizer.token_bytes(256), Some(&b"lo"[..]));
//! assert_eq!(tokenizer.bos_id(), Some(257));
//! # Ok::<(), nanofast::error::Error>(())
//! ```

mod counts;
mod merges;
mod words;

pub use counts::PretokenCounts;

use super::byte_level::alphabet;
use super::definition::{Definition, Frame, Merges, Normalizer, SpecialToken};
use super::pattern::{Pattern, Stage};
use super::vocab::{MAX_IDS, VocabularyBuilder};
use super::{Splitter, Tokenizer, splitter};
use crate::error::{Error, Result};
use words::Words;

const NAME: &str = "trained";

/// What is to be trained.
#[derive(Clone, Debug)]
pub struct Training {
    /// The split pattern, as tiktoken reads it; text between its matches becomes pretokens, too.
    pub pattern: String,
    /// Bytes, merged tokens and special tokens together.
    pub vocab_size: usize,
    /// Special tokens: they get the last ids, in this order.
    pub specials: Vec<String>,
}

impl Training {
    fn pattern(&self) -> Pattern {
        Pattern { stages: vec![Stage { regex: self.pattern.clone(), oniguruma: false, keep_gaps: true }] }
    }

    fn splitter(&self) -> Result<Splitter> {
        let pattern = self.pattern();
        let refuse = |reason| Error::Vocabulary { name: NAME.into(), reason };
        pattern.check().map_err(refuse)?;
        splitter(NAME, &pattern)
    }

    /// Whether it can be run at all.
    ///
    /// # Errors
    /// When the vocabulary's size is out of range.
    pub fn check(&self) -> Result<()> {
        self.num_merges().map(drop)
    }

    fn num_merges(&self) -> Result<usize> {
        let (smallest, largest) = (256 + self.specials.len(), MAX_IDS);
        if (smallest..=largest).contains(&self.vocab_size) {
            return Ok(self.vocab_size - smallest);
        }
        let rule = format!("at least {smallest} (256 bytes and the special tokens) and at most {largest}");
        Err(Error::config("vocab_size", self.vocab_size, rule))
    }

    /// The tokenizer for `counts`. `goes_on` is asked after every few hundred merges, with how many there are; where it says
    /// no, there is no tokenizer.
    ///
    /// The merges are those of Hugging Face's `BpeTrainer`: the pair that occurs most often goes first, and among equals the
    /// one whose left part, then whose right part, has the smaller id, bytes being numbered as that library numbers them.
    ///
    /// # Errors
    /// When the vocabulary's size is out of range or special tokens contradict each other.
    pub fn run(
        &self,
        counts: PretokenCounts,
        goes_on: impl FnMut(usize) -> bool,
    ) -> Result<Option<Tokenizer>> {
        let num_merges = self.num_merges()?;
        let mut tokens: Vec<Vec<u8>> = alphabet().map(|byte| vec![byte]).collect();
        let words = Words::new(counts.sorted(), &tokens);
        let Some(merges) = merges::learn(words, num_merges, goes_on) else { return Ok(None) };
        let mut builder = VocabularyBuilder::new(NAME);
        for &(left, right) in &merges {
            tokens.push([&*tokens[left as usize], &*tokens[right as usize]].concat());
        }
        for (id, token) in (0..).zip(&tokens) {
            builder.insert(id, token)?;
        }
        let specials = (tokens.len() as u32..).zip(&self.specials);
        Tokenizer::from_definition(Definition {
            name: NAME.into(),
            vocabulary: builder.build()?,
            merges: Merges::List(merges),
            whole_pretokens: false,
            pattern: self.pattern(),
            specials: specials.map(|(id, content)| SpecialToken::new(content, id)).collect(),
            normalizer: Normalizer::None,
            frame: Frame::default(),
        })
        .map(Some)
    }
}
