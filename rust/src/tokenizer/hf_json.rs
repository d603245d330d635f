//! Hugging Face's `tokenizer.json`, where it is byte-level BPE; anything else is refused by name.
//!
//! What the file says beyond this crate's definition (decoder, padding, truncation) does not change ids and is not read.
//! The post-processor is read for the special tokens that it puts around a text. Patterns are read as Oniguruma, the engine of
//! Hugging Face tokenizers, reads them.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::bounded::at_most;
use super::byte_level::decode_token;
use super::definition::{Definition, Frame, MAX_SPECIALS, Merges, Normalizer, SpecialToken};
use super::hf_json_parts::{MergeList, TokenList};
use super::pattern::{Pattern, Stage};
use super::vocab::{Vocabulary, VocabularyBuilder, shown};
use crate::error::{Error, Result};

/// The pattern of a `ByteLevel` pre-tokenizer that splits by itself.
const BYTE_LEVEL: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Bytes of a normalizer, pre-tokenizer or post-processor at most. The largest in use, normalization tables of
/// SentencePiece, have about 300 kB, and are then refused by name.
const MAX_PART_BYTES: usize = 4 << 20;

#[derive(Deserialize)]
struct File<'a> {
    #[serde(default, deserialize_with = "at_most::<_, _, MAX_SPECIALS>")]
    added_tokens: Vec<AddedToken>,
    #[serde(borrow)]
    normalizer: Option<&'a RawValue>,
    #[serde(borrow)]
    pre_tokenizer: Option<&'a RawValue>,
    #[serde(borrow)]
    post_processor: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Model<'a>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model<'a> {
    dropout: Option<f64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    #[serde(borrow)]
    vocab: TokenList<'a>,
    #[serde(borrow)]
    merges: MergeList<'a>,
}

/// The type of the model, read alone so that a model of another shape can be named.
#[derive(Deserialize)]
struct Probe {
    model: ProbeModel,
}

#[derive(Deserialize)]
struct ProbeModel {
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Reads the tokenizer in `bytes`; messages call it `name`.
///
/// # Errors
/// [`Error::Vocabulary`], saying which part is not supported or not consistent.
pub(super) fn parse(bytes: &[u8], name: &str) -> Result<Definition> {
    let refuse = |reason: String| Error::Vocabulary { name: name.into(), reason };
    let bad_json = |error: serde_json::Error| refuse(format!("no tokenizer.json: {error}"));
    let probe: Probe = serde_json::from_slice(bytes).map_err(bad_json)?;
    if let Some(kind) = probe.model.kind.filter(|kind| kind != "BPE") {
        return Err(refuse(format!("its model is {kind}; only byte-level BPE is supported")));
    }
    let file: File = serde_json::from_slice(bytes).map_err(bad_json)?;
    let model = &file.model;
    let unsupported = [
        (model.byte_fallback, "BPE with byte fallback (SentencePiece style)"),
        (model.dropout.is_some_and(|rate| rate > 0.0), "BPE with dropout"),
        (
            model.continuing_subword_prefix.as_ref().is_some_and(|it| !it.is_empty()),
            "BPE with a continuing-subword prefix",
        ),
        (
            model.end_of_word_suffix.as_ref().is_some_and(|it| !it.is_empty()),
            "BPE with an end-of-word suffix",
        ),
    ];
    if let Some((_, what)) = unsupported.iter().find(|(found, _)| *found) {
        return Err(refuse(format!("its model is {what}; only byte-level BPE is supported")));
    }
    let part = |name: &str, part| steps(name, part).map_err(&refuse);
    let pattern = pattern(part("pre_tokenizer", file.pre_tokenizer)?.as_ref()).map_err(&refuse)?;
    let normalizer = normalizer(part("normalizer", file.normalizer)?.as_ref()).map_err(&refuse)?;
    let post_processor = part("post_processor", file.post_processor)?;
    let frame = post_processor.map_or_else(Frame::default, |value| frame(&value, &file.added_tokens));
    let vocabulary = vocabulary(name, &file.model.vocab, &file.added_tokens)?;
    let merges = merges(&vocabulary, &file.model.merges).map_err(&refuse)?;
    Ok(Definition {
        name: name.into(),
        vocabulary,
        merges: Merges::List(merges),
        whole_pretokens: file.model.ignore_merges,
        pattern,
        specials: file.added_tokens.into_iter().map(special).collect(),
        normalizer,
        frame,
    })
}

fn special(token: AddedToken) -> SpecialToken {
    SpecialToken {
        content: token.content,
        id: token.id,
        plain_text: token.special,
        normalized: token.normalized,
        strip_left: token.lstrip,
        strip_right: token.rstrip,
        single_word: token.single_word,
    }
}

fn vocabulary(name: &str, tokens: &TokenList<'_>, added: &[AddedToken]) -> Result<Vocabulary> {
    let mut builder = VocabularyBuilder::new(name);
    let mut bytes = Vec::new();
    let mut added: Vec<(u32, &str)> = added.iter().map(|token| (token.id, &*token.content)).collect();
    added.sort_unstable();
    for (text, id) in &tokens.0 {
        let is_added = u32::try_from(*id).is_ok_and(|id| added.binary_search(&(id, text)).is_ok());
        match decode_token(text, &mut bytes) {
            true => builder.insert(*id, &bytes)?,
            // Text that no byte-level merge can give: a special token listed with the others, or dead weight.
            false if is_added => {}
            false => builder.insert_unreachable(*id, text.as_bytes())?,
        }
    }
    builder.build()
}

fn merges(vocabulary: &Vocabulary, list: &MergeList<'_>) -> std::result::Result<Vec<(u32, u32)>, String> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let id = |index: usize, token: &[u8]| {
        vocabulary.id(token).ok_or_else(|| format!("merge {index} names {}, which is no token", shown(token)))
    };
    let mut pairs = Vec::with_capacity(list.0.len());
    for (index, (a, b)) in list.0.iter().enumerate() {
        if !decode_token(a, &mut left) || !decode_token(b, &mut right) {
            return Err(format!("merge {index} (`{a}` `{b}`) is not byte-level"));
        }
        pairs.push((id(index, &left)?, id(index, &right)?));
        left.extend_from_slice(&right);
        id(index, &left)?;
    }
    Ok(pairs)
}

/// A part of the file that is small in every tokenizer, as a tree.
fn steps(name: &str, part: Option<&RawValue>) -> std::result::Result<Option<Value>, String> {
    let Some(text) = part.map(RawValue::get) else { return Ok(None) };
    if text.len() > MAX_PART_BYTES {
        return Err(format!("its {name} has {} bytes; at most {MAX_PART_BYTES} are read", text.len()));
    }
    serde_json::from_str(text).map(Some).map_err(|error| format!("bad {name}: {error}"))
}

fn kind(value: &Value) -> &str {
    value.get("type").and_then(Value::as_str).unwrap_or("without a type")
}

fn flag(value: &Value, name: &str, default: bool) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or(default)
}

/// The elements of a `Sequence`, or the value itself.
fn sequence<'a>(value: &'a Value, list: &str) -> Vec<&'a Value> {
    match (kind(value), value.get(list).and_then(Value::as_array)) {
        ("Sequence", Some(values)) => values.iter().flat_map(|value| sequence(value, list)).collect(),
        _ => vec![value],
    }
}

fn pattern(value: Option<&Value>) -> std::result::Result<Pattern, String> {
    let mut stages = Vec::new();
    let mut byte_level = false;
    for step in value.map(|value| sequence(value, "pretokenizers")).unwrap_or_default() {
        if byte_level {
            return Err(format!(
                "pre-tokenizer {} comes after ByteLevel; expected ByteLevel last",
                kind(step)
            ));
        }
        match kind(step) {
            "Split" => stages.push(split(step)?),
            "Digits" => {
                let regex = if flag(step, "individual_digits", false) { r"\p{N}" } else { r"\p{N}+" };
                stages.push(Stage { regex: regex.into(), oniguruma: true, keep_gaps: true });
            }
            "ByteLevel" => {
                byte_level = true;
                if flag(step, "add_prefix_space", true) {
                    return Err("pre-tokenizer ByteLevel with add_prefix_space is not supported".into());
                }
                if flag(step, "use_regex", true) {
                    stages.push(Stage { regex: BYTE_LEVEL.into(), oniguruma: true, keep_gaps: true });
                }
            }
            other => {
                return Err(format!(
                    "pre-tokenizer {other} is not supported; expected Split, Digits and ByteLevel"
                ));
            }
        }
    }
    match byte_level {
        true => Ok(Pattern { stages }),
        false => Err("it has no ByteLevel pre-tokenizer; only byte-level BPE is supported".into()),
    }
}

fn split(step: &Value) -> std::result::Result<Stage, String> {
    let pattern = step.get("pattern");
    let text = |name| pattern.and_then(|it| it.get(name)).and_then(Value::as_str);
    let regex = match (text("Regex"), text("String")) {
        (Some(regex), _) => regex.to_owned(),
        (None, Some(literal)) => literal.chars().map(|it| format!(r"\x{{{:x}}}", u32::from(it))).collect(),
        _ => return Err("pre-tokenizer Split without a pattern".into()),
    };
    let behavior = step.get("behavior").and_then(Value::as_str).unwrap_or("none");
    match (behavior, flag(step, "invert", false)) {
        ("Isolated", _) => Ok(Stage { regex, oniguruma: true, keep_gaps: true }),
        ("Removed", true) => Ok(Stage { regex, oniguruma: true, keep_gaps: false }),
        (_, invert) => Err(format!(
            "pre-tokenizer Split with behavior {behavior} and invert {invert} is not supported; expected Isolated"
        )),
    }
}

fn normalizer(value: Option<&Value>) -> std::result::Result<Normalizer, String> {
    let mut normalizer = Normalizer::None;
    for step in value.map(|value| sequence(value, "normalizers")).unwrap_or_default() {
        match kind(step) {
            "NFC" => normalizer = Normalizer::Nfc,
            other => return Err(format!("normalizer {other} is not supported; expected none or NFC")),
        }
    }
    Ok(normalizer)
}

/// The special tokens that the post-processor puts around a single text.
fn frame(value: &Value, added: &[AddedToken]) -> Frame {
    let mut frame = Frame::default();
    for step in sequence(value, "processors") {
        let id = |name: &str| u32::try_from(step.get(name)?.get(1)?.as_u64()?).ok();
        match kind(step) {
            "TemplateProcessing" => template(step, added, &mut frame),
            "RobertaProcessing" | "BertProcessing" => {
                frame.before.splice(..0, id("cls"));
                frame.after.extend(id("sep"));
            }
            _ => {}
        }
    }
    frame
}

/// Adds what a template puts around `$A`: a special token there stands for a list of ids.
fn template(step: &Value, added: &[AddedToken], frame: &mut Frame) {
    let ids_of = |name: &str| -> Vec<u32> {
        let listed = step.get("special_tokens").and_then(|it| it.get(name)?.get("ids")?.as_array());
        let id = |value: &Value| u32::try_from(value.as_u64()?).ok();
        match listed {
            Some(ids) => ids.iter().filter_map(id).collect(),
            None => added.iter().filter(|token| token.content == name).map(|token| token.id).collect(),
        }
    };
    let pieces = step.get("single").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let is_text = |piece: &Value| piece.get("Sequence").is_some();
    let text = pieces.iter().position(is_text).unwrap_or(pieces.len());
    let special = |piece: &Value| Some(ids_of(piece.get("SpecialToken")?.get("id")?.as_str()?));
    let ids = |pieces: &[Value]| pieces.iter().filter_map(special).flatten().collect::<Vec<u32>>();
    frame.before.splice(..0, ids(&pieces[..text]));
    frame.after.extend(ids(&pieces[text..]));
}
