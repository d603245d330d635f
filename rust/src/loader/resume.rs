//! States: taken, gone on from, and kept when settings change on the way.

use super::{Loader, Source};
use crate::config::LoaderConfig;
use crate::error::{Error, Result};
use crate::floor::Floor;
use crate::state::{Address, Identity, LaneEntry, LoaderState};

impl Loader {
    /// The state of the batch that the caller got last.
    pub fn state(&self) -> LoaderState {
        LoaderState {
            identity: self.identity.clone(),
            rank: Some(self.config.rank),
            world_size: self.config.world_size,
            round: self.round,
            turn: self.turn,
            batch_size: self.config.batch_size,
            sequence_length: self.config.sequence_length,
            weights: self.weights().to_vec(),
            lanes: self.config.own_lanes().into_iter().zip(self.entries.iter().cloned()).collect(),
        }
    }

    /// `state()` as JSON without its identity, which `identity()` gives once for all states.
    pub fn state_json(&self) -> serde_json::Value {
        self.state().to_json(&self.identity_digest)
    }

    /// What all states of this loader share.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Goes on behind the batch that `state` describes. Threads that already run are stopped; what they had packed
    /// ahead is dropped. On an error nothing changes.
    pub fn restore(&mut self, state: &LoaderState) -> Result<()> {
        if self.closed {
            return Err(Error::Closed);
        }
        self.identity.require(&state.identity)?;
        self.require_length(state.sequence_length)?;
        let own = self.config.own_lanes();
        if state.turn != 0 && state.world_size != self.config.world_size {
            let turns = self.config.plan.lanes / state.world_size.max(1);
            return Err(Error::State {
                reason: format!(
                    "the state lies inside a round (batch {} of {turns} of each rank) and was taken at world size {}; \
                     at world size {} a round can only be begun anew: go on to the end of the round there first",
                    state.turn, state.world_size, self.config.world_size
                ),
            });
        }
        let mut entries = Vec::with_capacity(own.len());
        for lane in &own {
            let Some(entry) = state.lanes.get(lane) else {
                let whose = match state.rank {
                    Some(rank) => format!("it is of rank {rank} of {}", state.world_size),
                    None => "it is not whole".into(),
                };
                let (rank, world_size) = (self.config.rank, self.config.world_size);
                return Err(Error::State {
                    reason: format!(
                        "the state has no lane {lane}: {whose}, this loader is rank {rank} of {world_size}; \
                         pass the states of all ranks through merge_states()"
                    ),
                });
            };
            self.check_positions(*lane, entry)?;
            entries.push(entry.clone());
        }
        if state.turn >= own.len() as u64 {
            let reason = format!("the state is damaged (turn {} of {} lanes)", state.turn, own.len());
            return Err(Error::State { reason });
        }
        self.rewind();
        if state.weights != self.weights() {
            entries.iter_mut().for_each(count_anew);
        }
        (self.entries, self.round, self.turn) = (entries, state.round, state.turn);
        Ok(())
    }

    /// Makes batches of another shape, or of other shares of a mixture's sources, from here on. What was packed ahead is
    /// packed again; no token is lost.
    pub fn reconfigure(
        &mut self,
        batch_size: usize,
        sequence_length: usize,
        weights: Option<Vec<f64>>,
    ) -> Result<()> {
        if self.closed {
            return Err(Error::Closed);
        }
        let mut config = LoaderConfig { batch_size, sequence_length, ..self.config.clone() };
        if let Some(weights) = weights {
            match &mut config.mixture {
                Some(mixture) if mixture.weights.len() == weights.len() => mixture.weights = weights,
                _ => {
                    let rule = format!("the loader reads {} data sets", self.plans.len());
                    return Err(Error::config("weights", weights.len(), rule));
                }
            }
        }
        config.validate()?;
        self.require_length(sequence_length)?;
        if let Source::Text { shards, .. } = &self.source {
            Floor::new(&config, &self.plans, shards).require(config.memory_limit_bytes)?;
        }
        self.rewind();
        if config.mixture != self.config.mixture {
            self.entries.iter_mut().for_each(count_anew);
        }
        self.config = config;
        Ok(())
    }

    /// Windows are cut at the length that the loader was made with.
    fn require_length(&self, sequence_length: usize) -> Result<()> {
        if matches!(self.source, Source::Text { .. }) || sequence_length == self.config.sequence_length {
            return Ok(());
        }
        let rule =
            format!("windows are cut at {}; begin a new loader for others", self.config.sequence_length);
        Err(Error::config("sequence_length", sequence_length, rule))
    }

    /// A state whose hashes fit and whose positions do not was written by something else.
    fn check_positions(&self, lane: usize, entry: &LaneEntry) -> Result<()> {
        if let Some(part) = entry.quarantine.iter().find(|part| part.shard >= self.identity.shards.len()) {
            let reason = format!("lane {lane} has left out rows of shard {}, which is not there", part.shard);
            return Err(Error::State { reason });
        }
        for waiting in &entry.packer.waiting {
            let Address { source, ordinal, row } = waiting.address;
            let unit = self.plans.get(source as usize).and_then(|plan| plan.unit(lane, ordinal));
            if !unit.is_some_and(|unit| (unit.start..unit.end).contains(&row)) {
                let reason = format!("lane {lane} holds row {row} of its unit {ordinal}, which is not there");
                return Err(Error::State { reason });
            }
        }
        Ok(())
    }

    /// Forgets everything behind the batch that the caller holds.
    fn rewind(&mut self) {
        self.stop();
        self.failed = None;
        self.fetched.clear();
        (self.accepted, self.before, self.given, self.memory) = (0, None, None, None);
    }
}

/// Shares are kept from here on, whatever was admitted before.
fn count_anew(entry: &mut LaneEntry) {
    entry.sources.iter_mut().for_each(|source| source.admitted = 0);
}
