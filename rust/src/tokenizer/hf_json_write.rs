//! A definition as Hugging Face's `tokenizer.json`.
//!
//! Ranks become the list of all merges they imply, in the order of ranks. Well-known patterns are spelled without possessive
//! repetitions, which other expression engines read differently.

use serde_json::{Value, json};

use super::bpe::PairTable;
use super::byte_level::encode_token;
use super::definition::{Definition, Merges, Normalizer};
use super::pretokenize::Family;

/// The file for a definition with these tables.
pub(super) fn write(definition: &Definition, pairs: &PairTable) -> Vec<u8> {
    let family = Family::of(&definition.pattern);
    let vocabulary = &definition.vocabulary;
    let text = |id| encode_token(vocabulary.token(id));
    let unreachable = |id| vocabulary.unreachable().binary_search(&id).is_ok();
    let vocab: serde_json::Map<String, Value> = vocabulary
        .iter()
        .map(|(id, token)| match unreachable(id) {
            true => (String::from_utf8_lossy(token).into_owned(), id.into()),
            false => (text(id), id.into()),
        })
        .collect();
    let listed = match &definition.merges {
        Merges::List(list) => list.clone(),
        Merges::ByRank => pairs.listed(),
    };
    let merges: Vec<Value> =
        listed.into_iter().map(|(left, right)| json!([text(left), text(right)])).collect();
    let mut steps: Vec<Value> = definition
        .pattern
        .stages
        .iter()
        .map(|stage| {
            // A pattern that came from such a file is written as it was.
            let plain = family.filter(|_| !stage.keep_gaps).map(Family::plain_spelling);
            let regex = plain.unwrap_or_else(|| stage.regex.clone());
            let (behavior, invert) = if stage.keep_gaps { ("Isolated", false) } else { ("Removed", true) };
            json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert})
        })
        .collect();
    steps.push(
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}),
    );
    let added: Vec<Value> = definition
        .specials
        .iter()
        .map(|it| {
            json!({
                "id": it.id, "content": it.content, "single_word": it.single_word, "lstrip": it.strip_left,
                "rstrip": it.strip_right, "normalized": it.normalized, "special": it.plain_text,
            })
        })
        .collect();
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let bos = definition.declared_bos.and_then(|id| definition.specials.iter().find(|it| it.id == id));
    let post_processor = bos.map_or(Value::Null, |bos| {
        let special = json!({"SpecialToken": {"id": bos.content, "type_id": 0}});
        let sequence = |name: &str, kind: u32| json!({"Sequence": {"id": name, "type_id": kind}});
        json!({
            "type": "TemplateProcessing",
            "single": [special, sequence("A", 0)],
            "pair": [special, sequence("A", 0), sequence("B", 1)],
            "special_tokens": {&bos.content: {"id": bos.content, "ids": [bos.id], "tokens": [bos.content]}},
        })
    });
    let file = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": match definition.normalizer { Normalizer::None => Value::Null, Normalizer::Nfc => json!({"type": "NFC"}) },
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": post_processor,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": definition.whole_pretokens, "vocab": vocab, "merges": merges,
        },
    });
    serde_json::to_vec(&file).expect("strings, numbers and lists are always JSON")
}
