//! Any JSON as a state: an error, or a state that is written as it was read.
//!
//! Input: JSON. The checks make chance hits rare, so what is fuzzed is everything before them, and a state whose bytes were
//! changed in places.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nanofast::state::LoaderState;
use serde_json::{Value, json};

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    if let Ok(state) = LoaderState::from_json(&value) {
        let mut written = state.to_json(&state.identity.digest());
        written["identity"] = json!(*state.identity);
        assert_eq!(LoaderState::from_json(&written).expect("what was written"), state);
        let _ = LoaderState::merge(vec![state.clone(), state]);
    }
});
