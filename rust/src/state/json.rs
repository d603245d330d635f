//! States as JSON (version 1): a head, the identity that all states of a run share, and one entry a lane.
//!
//! ```text
//! {"format": "nanofast.state", "version": 1, "rank": 0, "world_size": 1, "round": 7, "turn": 3, …, "check": "…",
//!  "identity": {"tokenizer": "…", "shards": [{"name": "shard_00000.parquet", …}], …},
//!  "lanes": {"0": {"ordinal": 12, "row": 431, "arrivals": 9801, "waiting": "base64 varints", "ledger": {…}, "check": "…"}}}
//! ```
//! `check` is a hash of what stands beside it, so that a torn or flipped state is refused and never half-loaded.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Address, Identity, LaneEntry, LoaderState, PackerState, SourceEntry, Waiting};
use crate::error::{Error, Result};
use crate::quarantine::{Quarantine, Quarantined};

/// Marks a JSON object as a state of ours.
pub const FORMAT: &str = "nanofast.state";
/// The only version that this code writes and reads.
pub const VERSION: u64 = 1;

/// An identity that states share, and its digest.
type Shared = (Arc<Identity>, String);

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
        Self::read(value, None)
    }

    /// Reads states of which those behind the first may lack their identity: it is the first one's then.
    pub fn all_from_json(values: impl IntoIterator<Item = Result<Value>>) -> Result<Vec<Self>> {
        let (mut states, mut shared): (Vec<Self>, Option<Shared>) = (Vec::new(), None);
        for value in values {
            let state = Self::read(&value?, shared.as_ref())?;
            shared.get_or_insert_with(|| (state.identity.clone(), state.identity.digest()));
            states.push(state);
        }
        Ok(states)
    }

    fn read(value: &Value, shared: Option<&Shared>) -> Result<Self> {
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
        let (identity, digest) = match (shared, &value["identity"]) {
            (Some(shared), Value::Null) => shared.clone(),
            (_, found) => {
                let identity: Identity = serde_json::from_value(found.clone())
                    .map_err(|error| damaged(&format!("identity: {error}")))?;
                let digest = identity.digest();
                (Arc::new(identity), digest)
            }
        };
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
            identity,
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
pub(super) fn hash(value: &Value) -> String {
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
    use super::super::Ledger;
    use super::super::identity::tests::identity;
    use super::*;
    use proptest::prelude::*;

    fn state(waiting: Vec<Waiting>) -> LoaderState {
        let packer = PackerState { arrivals: 9, waiting };
        let bad = Quarantined { shard: 0, row_group: 0, start: 1, end: 2, reason: "bad".into() };
        let quarantine = [bad].into_iter().collect();
        let position = Address { source: 0, ordinal: 3, row: 7 };
        let sources = vec![SourceEntry { position, ..SourceEntry::default() }];
        let entry = LaneEntry { sources, packer, ledger: Ledger::default(), quarantine };
        let lanes = BTreeMap::from([(0, entry.clone()), (1, entry)]);
        LoaderState {
            identity: Arc::new(identity()),
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

    #[test]
    fn states_behind_the_first_may_lack_their_identity_where_it_is_the_same() {
        let first = state(vec![]);
        let mut other = first.clone();
        other.identity = Arc::new(Identity { bos_id: 7, ..identity() });
        let bare = |state: &LoaderState| state.to_json(&state.identity.digest());
        let read = |values: [Value; 2]| LoaderState::all_from_json(values.map(Ok));
        assert_eq!(read([whole_json(&first), bare(&first)]).unwrap(), [first.clone(), first.clone()]);
        assert_eq!(read([whole_json(&first), whole_json(&other)]).unwrap(), [first.clone(), other.clone()]);
        assert!(read([whole_json(&first), bare(&other)]).is_err(), "another's");
        assert!(read([bare(&first), bare(&first)]).is_err(), "nobody's");
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
}
