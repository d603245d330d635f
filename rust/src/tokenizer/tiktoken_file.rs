//! The `.tiktoken` format: a line `base64-of-the-token rank` for each token.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::vocab::{MAX_TOKEN_BYTES, Vocabulary, VocabularyBuilder};
use crate::error::{Error, Result};

/// Reads the vocabulary in `bytes`; messages call it `name`.
///
/// # Errors
/// On a line that is not `base64 rank`, with its number, and as [`VocabularyBuilder`] says.
pub(super) fn parse(bytes: &[u8], name: &str) -> Result<Vocabulary> {
    let mut builder = VocabularyBuilder::new(name);
    let mut token = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let refuse = |reason: &str| Error::Vocabulary {
            name: name.into(),
            reason: format!("line {}: {reason}", index + 1),
        };
        if line.len() > MAX_TOKEN_BYTES * 2 {
            return Err(refuse(&format!("{} bytes; expected `base64 rank`", line.len())));
        }
        let text = str::from_utf8(line).map_err(|_| refuse("no text; expected `base64 rank`"))?;
        let (encoded, rank) = text.split_once(' ').ok_or_else(|| refuse("expected `base64 rank`"))?;
        token.clear();
        STANDARD.decode_vec(encoded, &mut token).map_err(|error| refuse(&format!("bad base64 ({error})")))?;
        let rank = rank.parse().map_err(|_| refuse(&format!("rank {rank:?} is no whole number ≥ 0")))?;
        builder.insert(rank, &token)?;
    }
    builder.build()
}

/// The file for a vocabulary, in the order of ids. What never comes out of merging has no rank.
pub(super) fn write(vocabulary: &Vocabulary) -> Vec<u8> {
    let mut text = String::new();
    let is_reachable = |&(id, _): &(u32, &[u8])| vocabulary.unreachable().binary_search(&id).is_err();
    for (id, token) in vocabulary.iter().filter(is_reachable) {
        STANDARD.encode_string(token, &mut text);
        text.push_str(&format!(" {id}\n"));
    }
    text.into_bytes()
}
