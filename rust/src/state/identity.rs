//! What must be the same for a state to mean the same stream.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::json::hash;
use crate::error::{Error, Result};
use crate::quarantine::BadFile;

/// A source of a mixture, by what must be the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// Its name.
    pub name: String,
    /// How many of the shards are its own.
    pub num_shards: usize,
    /// Documents a unit as resolved, 0 for whole row groups.
    pub unit_documents: u64,
}

/// What is known of a shard without reading its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardIdentity {
    /// File name without its folder.
    pub name: String,
    /// Size of the file.
    pub size_bytes: u64,
    /// Rows in all row groups.
    pub num_rows: u64,
    /// Number of row groups.
    pub num_row_groups: u64,
    /// Hash of the footer.
    pub footer: String,
}

/// What must be the same for a state to mean the same stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Fingerprint of the tokenizer.
    pub tokenizer: String,
    /// Token before each document.
    pub bos_id: u32,
    /// Token of padding.
    pub pad_id: u32,
    /// The text column.
    pub text_column: String,
    /// `concat`, `best_fit/carry`, …
    pub packing: String,
    /// How conversations are read and rendered; none for text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<String>,
    /// Number of lanes.
    pub lanes: usize,
    /// Documents a unit as resolved, 0 for whole row groups.
    pub unit_documents: u64,
    /// `stream` or `per_file`.
    pub deal: String,
    /// Whether units and documents are permuted.
    pub shuffle: bool,
    /// Documents that are permuted together.
    pub shuffle_window: u64,
    /// Seed of the permutations.
    pub seed: u64,
    /// `all`, `train` or `val`.
    pub split: String,
    /// Whether U+FFFD stands for what is not UTF-8.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaces_invalid_utf8: bool,
    /// Files that are left out whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_files: Vec<BadFile>,
    /// The sources of a mixture, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceIdentity>,
    /// What happens when a source has run out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_out: Option<String>,
    /// The shards, in order.
    pub shards: Vec<ShardIdentity>,
}

impl Identity {
    /// A hash of everything in it.
    pub fn digest(&self) -> String {
        hash(&json!(self))
    }

    /// Refuses by name the first thing in which `self` (a loader's) differs from `expected` (a state's).
    pub fn require(&self, expected: &Self) -> Result<()> {
        let (Value::Object(expected), Value::Object(found)) = (json!(expected), json!(self)) else {
            unreachable!("a struct serializes as an object")
        };
        // What is left at its default is not written.
        let fields: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
        let value = |object: &Map<String, Value>, field| object.get(field).cloned().unwrap_or_default();
        for field in fields {
            let (expected, found) = (value(&expected, field), value(&found, field));
            if expected == found {
                continue;
            }
            let (field, expected, found) = match (expected, found) {
                (Value::Array(expected), Value::Array(found)) if field == "shards" => {
                    differing_shard(&expected, &found)
                }
                (expected, found) => (field.clone(), written(&expected), written(&found)),
            };
            return Err(Error::Identity { field, expected, found });
        }
        Ok(())
    }
}

fn written(value: &Value) -> String {
    if value.is_null() { "none".into() } else { value.to_string() }
}

fn differing_shard(expected: &[Value], found: &[Value]) -> (String, String, String) {
    let mut pairs = expected.iter().zip(found).enumerate();
    match pairs.find(|(_, (expected, found))| expected != found) {
        Some((index, (expected, found))) => {
            (format!("shard {index}"), expected.to_string(), found.to_string())
        }
        None => ("number of shards".into(), expected.len().to_string(), found.len().to_string()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::state) fn identity() -> Identity {
        Identity {
            tokenizer: "t".into(),
            bos_id: 1,
            pad_id: 1,
            text_column: "text".into(),
            chat: None,
            packing: "concat".into(),
            lanes: 2,
            unit_documents: 0,
            deal: "stream".into(),
            shuffle: false,
            shuffle_window: 4096,
            seed: 0,
            split: "all".into(),
            replaces_invalid_utf8: false,
            bad_files: vec![],
            sources: vec![],
            run_out: None,
            shards: vec![ShardIdentity {
                name: "a.parquet".into(),
                size_bytes: 10,
                num_rows: 2,
                num_row_groups: 1,
                footer: "00".into(),
            }],
        }
    }

    #[test]
    fn what_differs_is_named_with_both_values() {
        let (expected, mut found) = (identity(), identity());
        found.seed = 5;
        assert!(
            found
                .require(&expected)
                .unwrap_err()
                .to_string()
                .contains("seed differs: the state has 0, this loader has 5")
        );
        found.seed = 0;
        found.shards[0].size_bytes = 11;
        assert!(found.require(&expected).unwrap_err().to_string().contains("shard 0 differs"));
        found.shards[0].size_bytes = 10;
        assert!(found.require(&expected).is_ok());
    }
}
