//! A definition as Hugging Face's `tokenizer.json`.
//!
//! Ranks become the list of all merges they imply, in the order of ranks. Well-known patterns are spelled without possessive
//! repetitions, which other expression engines read differently.

use serde_json::{Value, json};

use super::bpe::PairTable;
use super::byte_level::encode_token;
use super::definition::{Definition, Frame, Merges, Normalizer};
use super::oniguruma::translated;
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
            let plain = family.filter(|_| !stage.oniguruma).and_then(Family::plain_spelling);
            let regex = plain.unwrap_or_else(|| match stage.oniguruma {
                true => stage.regex.clone(),
                false => translated(&stage.regex),
            });
            let (behavior, invert) = if stage.keep_gaps { ("Isolated", false) } else { ("Removed", true) };
            json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert})
        })
        .collect();
    // The first pattern of this kind is built into the format, and the only spelling of it that some readers know.
    let built_in =
        family == Some(Family::Gpt2) && definition.pattern.stages.iter().all(|stage| !stage.oniguruma);
    if built_in {
        steps.clear();
    }
    steps.push(
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": built_in}),
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
    let post_processor = post_processor(definition);
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

/// The template that puts the frame around a text; none where there is no frame.
fn post_processor(definition: &Definition) -> Value {
    let frame = &definition.frame;
    if *frame == Frame::default() {
        return Value::Null;
    }
    let content = |id: u32| {
        let special = definition.specials.iter().find(|special| special.id == id);
        special.map_or_else(|| encode_token(definition.vocabulary.token(id)), |it| it.content.clone())
    };
    let special = |&id: &u32| json!({"SpecialToken": {"id": content(id), "type_id": 0}});
    let framed = |texts: &[&str]| -> Vec<Value> {
        let text = |name: &&str| json!({"Sequence": {"id": name, "type_id": 0}});
        let (before, after) = (frame.before.iter().map(special), frame.after.iter().map(special));
        before.chain(texts.iter().map(text)).chain(after).collect()
    };
    let ids = frame.before.iter().chain(&frame.after).map(|&id| {
        let name = content(id);
        (name.clone(), json!({"id": name, "ids": [id], "tokens": [name]}))
    });
    json!({
        "type": "TemplateProcessing",
        "single": framed(&["A"]),
        "pair": framed(&["A", "B"]),
        "special_tokens": Value::Object(ids.collect()),
    })
}
