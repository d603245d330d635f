//! The vocabularies that travel with the crate, as `build.rs` writes them.

use super::bpe::Cut;
use super::definition::{Definition, Frame, Merges, Normalizer, SpecialToken};
use super::pattern::Pattern;
use super::vocab::VocabularyBuilder;
use crate::error::{Error, Result};

const NAMES: &str = "`r50k_base`, `p50k_base`, `cl100k_base`, `o200k_base`";

const GPT2: &str = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s";

const CL100K: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+",
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
);

const O200K: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Tokens, and the ways to cut them into two.
type Table = (&'static [u8], &'static [u8]);

macro_rules! table {
    ($name:literal) => {
        (
            include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".vocab")),
            include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".pairs")),
        )
    };
}

/// The bundled vocabulary `name`, and the cuts of its tokens.
pub(super) fn load(name: &str) -> Result<(Definition, Vec<Cut>)> {
    let (table, pattern, specials): (Table, &str, &[(&str, u32)]) = match name {
        "r50k_base" => (table!("r50k_base"), GPT2, &[("<|endoftext|>", 50_256)]),
        "p50k_base" => (table!("p50k_base"), GPT2, &[("<|endoftext|>", 50_256)]),
        "cl100k_base" => (
            table!("cl100k_base"),
            CL100K,
            &[
                ("<|endoftext|>", 100_257),
                ("<|fim_prefix|>", 100_258),
                ("<|fim_middle|>", 100_259),
                ("<|fim_suffix|>", 100_260),
                ("<|endofprompt|>", 100_276),
            ],
        ),
        "o200k_base" => {
            (table!("o200k_base"), O200K, &[("<|endoftext|>", 199_999), ("<|endofprompt|>", 200_018)])
        }
        _ => {
            let reason =
                format!("no such bundled vocabulary; expected one of {NAMES}, or load a file with from_file");
            return Err(Error::Vocabulary { name: name.into(), reason });
        }
    };
    let (tokens, pairs) = table;
    let (count, rest) = tokens.split_first_chunk::<4>().expect("a table begins with its count");
    let (lengths, bytes) = rest.split_at(u32::from_le_bytes(*count) as usize);
    let (counts, pairs) = pairs.split_at(lengths.len());
    let id = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
    let of_cut = (0..).zip(counts).flat_map(|(whole, &count)| std::iter::repeat_n(whole, count.into()));
    let cuts = of_cut.zip(pairs.as_chunks::<6>().0);
    let cuts = cuts.map(|(whole, pair)| Cut { whole, left: id(pair), right: id(&pair[3..]) }).collect();
    let definition = Definition {
        name: name.into(),
        vocabulary: VocabularyBuilder::from_lengths(name, lengths, bytes).build()?,
        merges: Merges::ByRank,
        whole_pretokens: true,
        pattern: Pattern::tiktoken(pattern),
        specials: specials.iter().map(|&(content, id)| SpecialToken::new(content, id)).collect(),
        normalizer: Normalizer::None,
        frame: Frame::default(),
    };
    Ok((definition, cuts))
}
