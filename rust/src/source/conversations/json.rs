//! A row as JSON → a conversation's bytes.

use serde_json::{Map, Value};

use super::layout::{ALPACA_COLUMNS, Layout, PART_KEYS};
use crate::conversation::{Field, push_field};

/// Appends the conversation that `json` holds: an object with the layout's columns, or the list of messages itself. What
/// cannot be read becomes a field that says so.
pub fn push_json(conversation: &mut Vec<u8>, json: &[u8], layout: &Layout) {
    match serde_json::from_slice(json) {
        Ok(Value::Object(row)) => push_row(conversation, &row, layout),
        Ok(Value::Array(messages)) => push_messages(conversation, &messages, layout),
        Ok(other) => broken(conversation, &format!("a row that is {}; expected an object", kind(&other))),
        Err(error) => broken(conversation, &format!("a row that is no JSON: {error}")),
    }
}

fn broken(conversation: &mut Vec<u8>, reason: &str) {
    push_field(conversation, Field::Broken, reason.as_bytes());
}

fn push_row(conversation: &mut Vec<u8>, row: &Map<String, Value>, layout: &Layout) {
    if layout.keys().is_none() {
        return push_instruction(conversation, row);
    }
    match (row.get(&layout.column), row.get("text")) {
        (Some(Value::Array(messages)), _) => push_messages(conversation, messages, layout),
        (None, Some(Value::String(text))) => push_field(conversation, Field::Document, text.as_bytes()),
        (None, _) => {
            let keys: Vec<_> = row.keys().take(16).map(|key| format!("`{key}`")).collect();
            let column = &layout.column;
            broken(conversation, &format!("no `{column}` in the row (has: {})", keys.join(", ")));
        }
        (Some(other), _) => {
            let column = &layout.column;
            let found = kind(other);
            broken(conversation, &format!("`{column}` is {found}; expected a list of messages"));
        }
    }
}

fn push_instruction(conversation: &mut Vec<u8>, row: &Map<String, Value>) {
    let mut texts = [None; 4];
    for (text, column) in texts.iter_mut().zip(ALPACA_COLUMNS) {
        match row.get(column) {
            Some(Value::String(found)) => *text = Some(found.as_bytes()),
            None | Some(Value::Null) => {}
            Some(other) => {
                let found = kind(other);
                return broken(conversation, &format!("`{column}` is {found}; expected text"));
            }
        }
    }
    push_texts(conversation, texts);
}

/// Appends an instruction, what it is about, a system message and the answer, in the order of `ALPACA_COLUMNS`.
pub(super) fn push_texts(
    conversation: &mut Vec<u8>,
    [instruction, input, system, output]: [Option<&[u8]>; 4],
) {
    let (Some(instruction), Some(output)) = (instruction, output) else {
        let column = if instruction.is_none() { "instruction" } else { "output" };
        return broken(conversation, &format!("`{column}` is null or missing"));
    };
    let filled = |text: &&[u8]| !text.is_empty();
    if let Some(system) = system.filter(filled) {
        push_field(conversation, Field::Role, b"system");
        push_field(conversation, Field::Text, system);
    }
    push_field(conversation, Field::Role, b"user");
    match input.filter(filled) {
        Some(input) => push_field(conversation, Field::Text, &[instruction, b"\n\n", input].concat()),
        None => push_field(conversation, Field::Text, instruction),
    }
    push_field(conversation, Field::Role, b"assistant");
    push_field(conversation, Field::Text, output);
}

fn push_messages(conversation: &mut Vec<u8>, messages: &[Value], layout: &Layout) {
    let Some(keys) = layout.keys() else {
        return broken(conversation, "a list; expected an object with `instruction` and `output`");
    };
    for message in messages {
        let role = message.get(keys.role);
        let name = role.and_then(Value::as_str).unwrap_or_default();
        push_field(conversation, Field::Role, layout.role(name.as_bytes()));
        match role {
            Some(Value::String(_)) => {}
            _ if !message.is_object() => {
                return broken(conversation, &format!("it is {}; expected an object", kind(message)));
            }
            other => return broken(conversation, &not_text(keys.role, other)),
        }
        match message.get(keys.content) {
            Some(Value::String(text)) => push_field(conversation, Field::Text, text.as_bytes()),
            Some(Value::Array(parts)) => {
                for part in parts {
                    if let Err(reason) = push_part(conversation, part) {
                        return broken(conversation, &reason);
                    }
                }
            }
            other => return broken(conversation, &not_text(keys.content, other)),
        }
    }
}

fn push_part(conversation: &mut Vec<u8>, part: &Value) -> Result<(), String> {
    let [kind_key, text_key] = PART_KEYS;
    let name = part.get(kind_key).and_then(Value::as_str);
    let name = name.ok_or_else(|| format!("in a part, {}", not_text(kind_key, part.get(kind_key))))?;
    let Some(field) = Field::part(name.as_bytes()) else {
        push_field(conversation, Field::UnknownPart, name.as_bytes());
        return Ok(());
    };
    let text = part.get(text_key).and_then(Value::as_str);
    let text = text.ok_or_else(|| format!("in a part, {}", not_text(text_key, part.get(text_key))))?;
    push_field(conversation, field, text.as_bytes());
    Ok(())
}

fn not_text(key: &str, found: Option<&Value>) -> String {
    match found {
        None => format!("`{key}` is missing"),
        Some(found) => format!("`{key}` is {}; expected text", kind(found)),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
