//! nanofast's own file: a definition as JSON, exact to the fingerprint, whatever format it came from.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::bounded::at_most;
use super::definition::{Definition, Frame, MAX_SPECIALS, Merges, Normalizer, SpecialToken};
use super::pattern::Pattern;
use super::vocab::{MAX_IDS, VocabularyBuilder};
use crate::error::{Error, Result};

const FORMAT: &str = "nanofast-tokenizer";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct File {
    format: String,
    version: u32,
    name: String,
    /// Id and base64 of the bytes.
    #[serde(deserialize_with = "at_most::<_, _, MAX_IDS>")]
    tokens: Vec<(u64, String)>,
    /// Ids that decode and never come out of merging.
    #[serde(deserialize_with = "at_most::<_, _, MAX_IDS>")]
    unreachable: Vec<u32>,
    merges: Merges,
    whole_pretokens: bool,
    pattern: Pattern,
    #[serde(deserialize_with = "at_most::<_, _, MAX_SPECIALS>")]
    specials: Vec<SpecialToken>,
    normalizer: Normalizer,
    frame: Frame,
}

/// Whether `bytes` begin like a file of this format.
pub(super) fn is_native(bytes: &[u8]) -> bool {
    bytes.starts_with(br#"{"format":"nanofast-tokenizer""#)
}

/// The file for a definition.
pub(super) fn write(definition: &Definition) -> Vec<u8> {
    let tokens = definition.vocabulary.iter().map(|(id, token)| (id.into(), STANDARD.encode(token)));
    let file = File {
        format: FORMAT.into(),
        version: VERSION,
        name: definition.name.clone(),
        tokens: tokens.collect(),
        unreachable: definition.vocabulary.unreachable().to_vec(),
        merges: definition.merges.clone(),
        whole_pretokens: definition.whole_pretokens,
        pattern: definition.pattern.clone(),
        specials: definition.specials.clone(),
        normalizer: definition.normalizer,
        frame: definition.frame.clone(),
    };
    serde_json::to_vec(&file).expect("strings, numbers and lists are always JSON")
}

/// Reads a file of this format; messages call it `name` until its own name is known.
pub(super) fn parse(bytes: &[u8], name: &str) -> Result<Definition> {
    let refuse = |reason| Error::Vocabulary { name: name.into(), reason };
    let file: File =
        serde_json::from_slice(bytes).map_err(|error| refuse(format!("bad nanofast tokenizer: {error}")))?;
    if file.version != VERSION {
        let found = file.version;
        return Err(refuse(format!(
            "format version {found}; this release reads version {VERSION}; save it again"
        )));
    }
    let mut builder = VocabularyBuilder::new(&file.name);
    for (id, token) in &file.tokens {
        let token =
            STANDARD.decode(token).map_err(|error| refuse(format!("token {id}: bad base64 ({error})")))?;
        match u32::try_from(*id).is_ok_and(|id| file.unreachable.binary_search(&id).is_ok()) {
            true => builder.insert_unreachable(*id, &token)?,
            false => builder.insert(*id, &token)?,
        }
    }
    Ok(Definition {
        vocabulary: builder.build()?,
        name: file.name,
        merges: file.merges,
        whole_pretokens: file.whole_pretokens,
        pattern: file.pattern,
        specials: file.specials,
        normalizer: file.normalizer,
        frame: file.frame,
    })
}
