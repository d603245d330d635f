//! Positions, the token ledger, and the versioned state that a loader is resumed from.
//!
//! A state holds positions, never tokens or text: where the next document of each lane is, and where the
//! documents are that wait in the lane's packer. Everything here is plain data.
//!
//! As JSON (version 1): a head, the identity that all states of a run share, and one entry a lane:
//!
//! ```text
//! {"format": "nanofast.state", "version": 1, "rank": 0, "world_size": 1, "round": 7, "turn": 3, …, "check": "…",
//!  "identity": {"tokenizer": "…", "shards": [{"name": "shard_00000.parquet", …}], …},
//!  "lanes": {"0": {"ordinal": 12, "row": 431, "arrivals": 9801, "waiting": "base64 varints", "ledger": {…}, "check": "…"}}}
//! ```
//! `check` is a hash of what stands beside it, so that a torn or flipped state is refused and never half-loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::quarantine::{BadFile, Quarantine, Quarantined};

/// Marks a JSON object as a state of ours.
pub const FORMAT: &str = "nanofast.state";
/// The only version that this code writes and reads.
pub const VERSION: u64 = 1;

/// A document of a lane: row `row` of the lane's `ordinal`-th unit.
///
/// As a position it names the next document to admit; with shuffle `ordinal` is then the window's first unit
/// and `row` the index within the permuted window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// Which source of a mixture; else 0.
    pub source: u32,
    /// Which unit of the lane, counted over all epochs.
    pub ordinal: u64,
    /// Row within the row group (not within the unit).
    pub row: u64,
}

/// A document that a packer holds, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The document.
    pub address: Address,
    /// A byte of the document from which tokenizing gives the same ids; 0 is always one.
    pub byte_offset: u64,
    /// Tokens behind `byte_offset` that are already used up (`concat` counts the BOS as one).
    pub skip_tokens: u64,
    /// How many documents the lane had admitted before it.
    pub arrival: u64,
}

/// All that a packer remembers between two batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackerState {
    /// Documents admitted by the lane so far.
    pub arrivals: u64,
    /// The documents it holds, in its own order.
    pub waiting: Vec<Waiting>,
}

/// Where every token went. At every batch `read = learned + masked + cropped + waiting`.
///
/// BOS and padding that the packer adds are counted apart: `learned + masked + bos + padding` is the number of
/// positions delivered, the token that two rows of `concat` share counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Documents admitted.
    pub documents: u64,
    /// Bytes of their text.
    pub bytes: u64,
    /// Their tokens, without BOS.
    pub read: u64,
    /// Delivered and learned, without BOS.
    pub learned: u64,
    /// Delivered with the loss masked (conversations).
    pub masked: u64,
    /// BOS tokens delivered.
    pub bos: u64,
    /// Padding delivered.
    pub padding: u64,
    /// Dropped by `crop`, or beyond the end of a row.
    pub cropped: u64,
    /// Documents cut, the rest kept for later (a count of cuts, in no sum).
    pub carried: u64,
    /// Documents longer than a row, cut to it (in no sum; their tokens are `cropped`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cut: u64,
    /// Conversations left out before they were read, since they are longer than a row.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out_long: u64,
    /// Conversations left out before they were read, since a row would hold nothing of them that is learned.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out_unlearned: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Ledger {
    /// Tokens that were read and neither delivered nor cropped: they wait in buffers.
    pub fn waiting(&self) -> u64 {
        self.read - self.learned - self.masked - self.cropped
    }

    /// Adds another lane's counts.
    pub fn add(&mut self, other: &Self) {
        self.documents += other.documents;
        self.bytes += other.bytes;
        self.read += other.read;
        self.learned += other.learned;
        self.masked += other.masked;
        self.bos += other.bos;
        self.padding += other.padding;
        self.cropped += other.cropped;
        self.carried += other.carried;
        self.cut += other.cut;
        self.left_out_long += other.left_out_long;
        self.left_out_unlearned += other.left_out_unlearned;
    }
}

/// Where a lane stands in one source. The counters are those of a mixture, and stay 0 without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceEntry {
    /// The next document to admit.
    pub position: Address,
    /// Tokens admitted since counters began anew, BOS included.
    pub admitted: u64,
    /// Whether it has dropped out.
    pub has_run_out: bool,
    /// Tokens admitted in all, BOS included.
    pub read: u64,
    /// Tokens delivered as targets that are learned, without BOS.
    pub trained: u64,
}

/// Where one lane stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneEntry {
    /// In each source.
    pub sources: Vec<SourceEntry>,
    /// What its packer holds.
    pub packer: PackerState,
    /// Where its tokens went.
    pub ledger: Ledger,
    /// What it has left out so far.
    pub quarantine: Quarantine,
}

impl LaneEntry {
    /// The beginning of all data.
    pub fn beginning(num_sources: usize) -> Self {
        let position = |source| Address { source, ..Address::default() };
        let sources = (0..num_sources as u32)
            .map(|source| SourceEntry { position: position(source), ..SourceEntry::default() });
        Self { sources: sources.collect(), ..Self::default() }
    }
}

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

/// A rank's state, or that of several ranks together.
#[derive(Clone, Debug, PartialEq)]
pub struct LoaderState {
    /// What it belongs to: one object for all states of a loader.
    pub identity: Arc<Identity>,
    /// The rank that it was taken on; `None` when it holds those of all ranks.
    pub rank: Option<usize>,
    /// Number of ranks when it was taken.
    pub world_size: usize,
    /// Complete rounds.
    pub round: u64,
    /// Batches that each rank has delivered in the round at hand.
    pub turn: u64,
    /// Rows a batch when it was taken.
    pub batch_size: usize,
    /// Inputs a row when it was taken.
    pub sequence_length: usize,
    /// Weights of a mixture's sources when it was taken.
    pub weights: Vec<f64>,
    /// Where each lane stands.
    pub lanes: BTreeMap<usize, LaneEntry>,
}

impl LoaderState {
    /// As JSON without the identity, which is shared by all states of a loader: the caller adds it as `identity`.
    pub fn to_json(&self, identity_digest: &str) -> Value {
        let lanes = self
            .lanes
            .iter()
            .map(|(lane, entry)| (lane.to_string(), entry_json(*lane, entry, identity_digest)));
        let mut value = self.head_json(identity_digest);
        value["check"] = json!(hash(&value));
        value["lanes"] = Value::Object(lanes.collect());
        value
    }

    /// The states of all ranks as one, which any world size that divides the lanes can take up at a round's end.
    pub fn merge(states: Vec<Self>) -> Result<Self> {
        let refuse = |reason: String| Err(Error::State { reason });
        let mut states = states.into_iter();
        let Some(mut whole) = states.next() else { return refuse("no states to merge".into()) };
        for state in states {
            state.identity.require(&whole.identity)?;
            for (field, one, other) in [
                ("world size", whole.world_size as u64, state.world_size as u64),
                ("round", whole.round, state.round),
                ("batch within the round", whole.turn, state.turn),
            ] {
                if one != other {
                    return refuse(format!("the states are not of one moment: {field} {one} and {other}"));
                }
            }
            for (lane, entry) in state.lanes {
                if whole.lanes.insert(lane, entry.clone()).is_some_and(|before| before != entry) {
                    return refuse(format!("two states hold lane {lane} and differ"));
                }
            }
        }
        if let Some(lane) = (0..whole.identity.lanes).find(|lane| !whole.lanes.contains_key(lane)) {
            let rank = lane % whole.world_size.max(1);
            return refuse(format!(
                "lane {lane} is missing: the state of rank {rank} of {} is not among them",
                whole.world_size
            ));
        }
        whole.rank = None;
        Ok(whole)
    }

    fn head_json(&self, identity_digest: &str) -> Value {
        let mut head = json!({
            "format": FORMAT, "version": VERSION, "rank": self.rank, "world_size": self.world_size,
            "round": self.round, "turn": self.turn, "batch_size": self.batch_size,
            "sequence_length": self.sequence_length, "identity_digest": identity_digest,
        });
        if !self.weights.is_empty() {
            head["weights"] = json!(self.weights);
        }
        head
    }

    /// Reads a state with its identity; anything torn, flipped or foreign is refused.
    pub fn from_json(value: &Value) -> Result<Self> {
        let refuse = |reason: String| Error::State { reason };
        let Some(object) = value.as_object() else {
            return Err(refuse("this is no state: expected the dict that state_dict() gave".into()));
        };
        match object.get("format").and_then(Value::as_str) {
            Some(FORMAT) => {}
            found => {
                let found = found.map_or("no format".into(), |name| format!("format `{name}`"));
                return Err(refuse(format!(
                    "this is no state of a nanofast loader: expected format `{FORMAT}`, found {found}"
                )));
            }
        }
        match object.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            found => {
                let found = found.map_or("none".into(), |version| version.to_string());
                return Err(refuse(format!(
                    "state version {found} is unknown here (this release reads version {VERSION})"
                )));
            }
        }
        let damaged = |what: &str| refuse(format!("the state is damaged ({what}); take the one before it"));
        let identity: Identity = serde_json::from_value(value["identity"].clone())
            .map_err(|error| damaged(&format!("identity: {error}")))?;
        let digest = identity.digest();
        let number = |field: &str| value[field].as_u64().ok_or_else(|| damaged(field));
        let mut state = Self {
            rank: match &value["rank"] {
                Value::Null => None,
                _ => Some(number("rank")? as usize),
            },
            world_size: number("world_size")? as usize,
            round: number("round")?,
            turn: number("turn")?,
            batch_size: number("batch_size")? as usize,
            sequence_length: number("sequence_length")? as usize,
            weights: match &value["weights"] {
                Value::Null => Vec::new(),
                weights => serde_json::from_value(weights.clone()).map_err(|_| damaged("weights"))?,
            },
            identity: Arc::new(identity),
            lanes: BTreeMap::new(),
        };
        if value["check"] != json!(hash(&state.head_json(&digest))) || value["identity_digest"] != digest {
            return Err(damaged("head or identity"));
        }
        for (lane, entry) in value["lanes"].as_object().ok_or_else(|| damaged("lanes"))? {
            let broken = || damaged(&format!("lane {lane}"));
            let number = lane.parse::<usize>().map_err(|_| broken())?;
            let read = entry_from_json(entry, state.identity.sources.len().max(1)).ok_or_else(broken)?;
            if entry_json(number, &read, &digest) != *entry {
                return Err(broken());
            }
            state.lanes.insert(number, read);
        }
        Ok(state)
    }
}

fn entry_json(lane: usize, entry: &LaneEntry, identity_digest: &str) -> Value {
    let mut value = json!({
        "arrivals": entry.packer.arrivals, "ledger": entry.ledger,
        "waiting": pack_waiting(&entry.packer.waiting, entry.sources.len() as u64),
    });
    if let [source] = &entry.sources[..]
        && source.read == 0
    {
        value["ordinal"] = json!(source.position.ordinal);
        value["row"] = json!(source.position.row);
    } else {
        value["sources"] = entry
            .sources
            .iter()
            .map(|source| {
                let Address { ordinal, row, .. } = source.position;
                json!([ordinal, row, source.admitted, source.has_run_out, source.read, source.trained])
            })
            .collect();
    }
    if !entry.quarantine.is_empty() {
        value["quarantine"] = entry.quarantine.iter().map(|part| json!(part)).collect();
    }
    value["check"] = json!(hash(&json!([lane, identity_digest, value])));
    value
}

fn entry_from_json(value: &Value, num_sources: usize) -> Option<LaneEntry> {
    let number = |field: &str| value.get(field)?.as_u64();
    let sources = match value.get("sources") {
        None => {
            let position = Address { source: 0, ordinal: number("ordinal")?, row: number("row")? };
            vec![SourceEntry { position, ..SourceEntry::default() }]
        }
        Some(sources) => {
            let sources: Vec<(u64, u64, u64, bool, u64, u64)> =
                serde_json::from_value(sources.clone()).ok()?;
            let entry = |(source, (ordinal, row, admitted, has_run_out, read, trained))| {
                let position = Address { source, ordinal, row };
                SourceEntry { position, admitted, has_run_out, read, trained }
            };
            (0..).zip(sources).map(entry).collect()
        }
    };
    if sources.len() != num_sources {
        return None;
    }
    Some(LaneEntry {
        packer: PackerState {
            arrivals: number("arrivals")?,
            waiting: unpack_waiting(value.get("waiting")?.as_str()?, num_sources as u64)?,
        },
        ledger: serde_json::from_value(value.get("ledger")?.clone()).ok()?,
        quarantine: match value.get("quarantine") {
            Some(parts) => {
                serde_json::from_value::<Vec<Quarantined>>(parts.clone()).ok()?.into_iter().collect()
            }
            None => Quarantine::default(),
        },
        sources,
    })
}

/// SHA-256 of the JSON text (object keys are sorted), 16 hex digits of it.
fn hash(value: &Value) -> String {
    let digest = Sha256::digest(value.to_string().as_bytes());
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waiting documents as base64 of zigzag varints, each number as its difference from the one before. With several
/// sources, source and ordinal are one number.
fn pack_waiting(waiting: &[Waiting], num_sources: u64) -> String {
    let mut bytes = Vec::with_capacity(waiting.len() * 6);
    let mut before = [0u64; 5];
    for document in waiting {
        let numbers = numbers_of(document, num_sources);
        for (number, before) in numbers.iter().zip(&mut before) {
            let difference = number.wrapping_sub(*before) as i64;
            let mut zigzag = ((difference << 1) ^ (difference >> 63)) as u64;
            while zigzag >= 0x80 {
                bytes.push(zigzag as u8 | 0x80);
                zigzag >>= 7;
            }
            bytes.push(zigzag as u8);
            *before = *number;
        }
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

fn unpack_waiting(text: &str, num_sources: u64) -> Option<Vec<Waiting>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (mut waiting, mut numbers, mut rest) = (Vec::new(), [0u64; 5], bytes.as_slice());
    while !rest.is_empty() {
        for number in &mut numbers {
            let length = rest.iter().position(|byte| byte & 0x80 == 0)? + 1;
            if length > 10 {
                return None;
            }
            let (varint, behind) = rest.split_at(length);
            let zigzag = varint.iter().rev().fold(0u64, |value, byte| value << 7 | (byte & 0x7f) as u64);
            *number = number.wrapping_add(((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)) as u64);
            rest = behind;
        }
        let [ordinal, row, byte_offset, skip_tokens, arrival] = numbers;
        let (source, ordinal) = ((ordinal % num_sources) as u32, ordinal / num_sources);
        let address = Address { source, ordinal, row };
        waiting.push(Waiting { address, byte_offset, skip_tokens, arrival });
    }
    Some(waiting)
}

fn numbers_of(document: &Waiting, num_sources: u64) -> [u64; 5] {
    let Waiting { address: Address { source, ordinal, row }, byte_offset, skip_tokens, arrival } = *document;
    let ordinal = ordinal.wrapping_mul(num_sources).wrapping_add(u64::from(source));
    [ordinal, row, byte_offset, skip_tokens, arrival]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state(waiting: Vec<Waiting>) -> LoaderState {
        let identity = Identity {
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
        };
        let packer = PackerState { arrivals: 9, waiting };
        let bad = Quarantined { shard: 0, row_group: 0, start: 1, end: 2, reason: "bad".into() };
        let quarantine = [bad].into_iter().collect();
        let position = Address { source: 0, ordinal: 3, row: 7 };
        let sources = vec![SourceEntry { position, ..SourceEntry::default() }];
        let entry = LaneEntry { sources, packer, ledger: Ledger::default(), quarantine };
        let lanes = BTreeMap::from([(0, entry.clone()), (1, entry)]);
        LoaderState {
            identity: Arc::new(identity),
            rank: Some(0),
            world_size: 1,
            round: 4,
            turn: 1,
            batch_size: 2,
            sequence_length: 8,
            weights: vec![],
            lanes,
        }
    }

    fn whole_json(state: &LoaderState) -> Value {
        let mut value = state.to_json(&state.identity.digest());
        value["identity"] = json!(*state.identity);
        value
    }

    proptest! {
        #[test]
        fn any_state_survives_json(numbers in prop::collection::vec(any::<[u64; 5]>(), 0..20)) {
            let waiting = numbers.into_iter().map(|[ordinal, row, byte_offset, skip_tokens, arrival]| Waiting {
                address: Address { source: 0, ordinal, row }, byte_offset, skip_tokens, arrival,
            }).collect();
            let state = state(waiting);
            let text = whole_json(&state).to_string();
            prop_assert_eq!(LoaderState::from_json(&serde_json::from_str(&text).unwrap()).unwrap(), state);
        }

        #[test]
        fn a_changed_byte_is_refused(position in 0usize..2000, byte in 32u8..127) {
            let waiting = Waiting { address: Address { source: 0, ordinal: 3, row: 5 }, byte_offset: 0, skip_tokens: 4, arrival: 8 };
            let mut text = whole_json(&state(vec![waiting])).to_string().into_bytes();
            let position = position % text.len();
            prop_assume!(text[position] != byte);
            text[position] = byte;
            if let Ok(value) = serde_json::from_slice(&text) {
                prop_assert!(LoaderState::from_json(&value).is_err());
            }
        }
    }

    #[test]
    fn a_buffer_of_256_documents_stays_small() {
        let waiting = (0..256).map(|i| Waiting {
            address: Address { source: 0, ordinal: 123_456 + i / 10, row: 100_000 + i * 3 },
            byte_offset: 0,
            skip_tokens: if i % 7 == 0 { 5000 + i } else { 0 },
            arrival: 10_000_000 + i * 3,
        });
        let json = state(waiting.collect()).to_json("d");
        assert!(json["lanes"]["0"].to_string().len() < 4000);
    }

    #[test]
    fn what_differs_is_named_with_both_values() {
        let identity = || Identity::clone(&state(vec![]).identity);
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
