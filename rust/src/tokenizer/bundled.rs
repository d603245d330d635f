//! The vocabularies that travel with the crate, as `build.rs` writes them.

use super::definition::{Definition, Merges, Normalizer, SpecialToken};
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

/// The definition of the bundled vocabulary `name`.
pub(super) fn definition(name: &str) -> Result<Definition> {
    let (table, pattern, specials): (&[u8], &str, &[(&str, u32)]) = match name {
        "r50k_base" => {
            (include_bytes!(concat!(env!("OUT_DIR"), "/r50k_base.vocab")), GPT2, &[("<|endoftext|>", 50_256)])
        }
        "p50k_base" => {
            (include_bytes!(concat!(env!("OUT_DIR"), "/p50k_base.vocab")), GPT2, &[("<|endoftext|>", 50_256)])
        }
        "cl100k_base" => (
            include_bytes!(concat!(env!("OUT_DIR"), "/cl100k_base.vocab")),
            CL100K,
            &[
                ("<|endoftext|>", 100_257),
                ("<|fim_prefix|>", 100_258),
                ("<|fim_middle|>", 100_259),
                ("<|fim_suffix|>", 100_260),
                ("<|endofprompt|>", 100_276),
            ],
        ),
        "o200k_base" => (
            include_bytes!(concat!(env!("OUT_DIR"), "/o200k_base.vocab")),
            O200K,
            &[("<|endoftext|>", 199_999), ("<|endofprompt|>", 200_018)],
        ),
        _ => {
            let reason =
                format!("no such bundled vocabulary; expected one of {NAMES}, or load a file with from_file");
            return Err(Error::Vocabulary { name: name.into(), reason });
        }
    };
    let (count, rest) = table.split_first_chunk::<4>().expect("a table begins with its count");
    let (lengths, bytes) = rest.split_at(u32::from_le_bytes(*count) as usize);
    Ok(Definition {
        name: name.into(),
        vocabulary: VocabularyBuilder::from_lengths(name, lengths, bytes).build()?,
        merges: Merges::ByRank,
        whole_pretokens: true,
        pattern: Pattern::tiktoken(pattern),
        specials: specials.iter().map(|&(content, id)| SpecialToken::new(content, id)).collect(),
        normalizer: Normalizer::None,
        declared_bos: None,
    })
}
