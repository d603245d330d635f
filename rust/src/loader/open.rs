//! Making a loader: settings and data are checked against each other, plans and identity made of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::{Loader, Source, SourceShards};
use crate::config::{DocumentName, LoaderConfig, Packing, PlanConfig};
use crate::error::{Error, Result};
use crate::floor::Floor;
use crate::metrics::Metrics;
use crate::piece::DocumentPlace;
use crate::plan::{Plan, key_of};
use crate::source::Shard;
use crate::state::{Identity, LaneEntry, ShardIdentity, SourceIdentity};
use crate::token_file::TokenFiles;
use crate::tokenizer::Encoding;
use crate::windows::{Shuffle, Windows};

impl Loader {
    /// A loader over opened shards: of texts with a tokenizer, of conversations with a renderer. `bos_id` and `pad_id`
    /// of the configuration belong to the tokenizer.
    pub fn new(config: LoaderConfig, shards: Vec<Shard>, encoding: impl Into<Encoding>) -> Result<Self> {
        let source = SourceShards { name: String::new(), shards, bad_files: Vec::new() };
        Self::over_sources(config, vec![source], encoding)
    }

    /// As `new`, over one source or as many as `config.mixture` has weights.
    pub fn over_sources(
        config: LoaderConfig,
        sources: Vec<SourceShards>,
        encoding: impl Into<Encoding>,
    ) -> Result<Self> {
        config.validate()?;
        let encoding = match encoding.into() {
            // One endless stream is learned whole, whoever speaks.
            Encoding::Conversations(renderer) if config.packing == Packing::Concat => {
                Encoding::Conversations(renderer.learning_all())
            }
            other => other,
        };
        let expected = config.mixture.as_ref().map_or(1, |mixture| mixture.weights.len());
        if sources.len() != expected {
            let rule = format!("{expected} data sets are expected");
            return Err(Error::config("sources", sources.len(), rule));
        }
        let plans = plans(&config, &sources)?;
        let named = |(source, plan): (&SourceShards, &Plan)| SourceIdentity {
            name: source.name.clone(),
            num_shards: source.shards.len(),
            unit_documents: plan.unit_documents(),
        };
        let named = sources.iter().zip(&plans).filter(|_| config.mixture.is_some()).map(named).collect();
        let bad_files = sources.iter().flat_map(|source| source.bad_files.iter().cloned()).collect();
        let shards: Vec<Shard> = sources.into_iter().flat_map(|source| source.shards).collect();
        let identity = Identity {
            tokenizer: encoding.tokenizer().fingerprint().to_string(),
            bos_id: config.bos_id,
            pad_id: config.pad_id,
            text_column: config.text_column.clone(),
            packing: config.packing.name().into(),
            chat: config.chat.as_ref().map(|chat| chat.identity.clone()),
            lanes: config.plan.lanes,
            unit_documents: plans[0].unit_documents(),
            deal: config.plan.deal.name().into(),
            shuffle: config.plan.shuffle,
            shuffle_window: config.plan.shuffle_window,
            seed: config.plan.seed,
            split: config.plan.split.name().into(),
            sources: named,
            run_out: config.mixture.as_ref().map(|mixture| mixture.run_out.name().into()),
            replaces_invalid_utf8: config.bad_data.replace_invalid_utf8,
            bad_files,
            shards: shards.iter().map(shard_identity).collect(),
        };
        let excluded = excluded(&config.exclude, &identity)?;
        Floor::new(&config, &plans, &shards).require(config.memory_limit_bytes)?;
        let source = Source::Text { shards: Arc::new(shards), encoding };
        let mut loader = Self::over(config, plans, source, identity);
        loader.excluded = Arc::new(excluded);
        Ok(loader)
    }

    /// A loader over token files whose ids stay below `vocab_size`, 2^31 at most. Of the configuration, packing, text
    /// column and units have no meaning here.
    pub fn over_token_files(
        config: LoaderConfig,
        files: TokenFiles,
        shuffle: Shuffle,
        vocab_size: u32,
    ) -> Result<Self> {
        config.validate()?;
        let windows = Windows::new(files, config.sequence_length, shuffle, &config.plan, vocab_size)?;
        let identity = Identity {
            tokenizer: String::new(),
            bos_id: config.bos_id,
            pad_id: config.pad_id,
            text_column: String::new(),
            chat: None,
            packing: format!("windows/{}", shuffle.name()),
            lanes: config.plan.lanes,
            unit_documents: 1,
            deal: config.plan.deal.name().into(),
            shuffle: shuffle != Shuffle::Off,
            shuffle_window: config.plan.shuffle_window,
            seed: config.plan.seed,
            split: config.plan.split.name().into(),
            replaces_invalid_utf8: false,
            bad_files: Vec::new(),
            sources: Vec::new(),
            run_out: None,
            shards: windows.shard_identities()?,
        };
        let plan = windows.plan().as_ref().clone();
        Ok(Self::over(config, vec![plan], Source::Windows(Arc::new(windows)), identity))
    }

    fn over(config: LoaderConfig, plans: Vec<Plan>, source: Source, identity: Identity) -> Self {
        Self {
            entries: vec![LaneEntry::beginning(plans.len()); config.own_lanes().len()],
            identity_digest: identity.digest(),
            identity: Arc::new(identity),
            plans: Arc::new(plans),
            excluded: Arc::default(),
            source,
            metrics: Arc::new(Metrics::default()),
            config,
            accepted: 0,
            before: None,
            fetched: VecDeque::new(),
            given: None,
            round: 0,
            turn: 0,
            memory: None,
            pipeline: None,
            failed: None,
            closed: false,
            process: std::process::id(),
            first_round: 0,
            shares_end: false,
            #[cfg(test)]
            fault: |_| Ok(()),
        }
    }
}

/// The places of documents by their names.
fn excluded(names: &[DocumentName], identity: &Identity) -> Result<HashSet<DocumentPlace>> {
    let mut shards: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, shard) in identity.shards.iter().enumerate() {
        shards.entry(shard.name.as_str()).or_default().push(index);
    }
    let mut places = HashSet::new();
    for DocumentName { file, row_group, row } in names {
        let Some(indexes) = shards.get(file.as_str()) else {
            return Err(Error::config("exclude", format!("`{file}`"), "no shard of the data has this name"));
        };
        places.extend(indexes.iter().map(|&shard| (shard, *row_group, *row)));
    }
    Ok(places)
}

/// The plan of each source; that of a mixture's has a seed of its own.
fn plans(config: &LoaderConfig, sources: &[SourceShards]) -> Result<Vec<Plan>> {
    let mut first_shard = 0;
    let plan = |(index, source): (usize, &SourceShards)| {
        let row_counts: Vec<Vec<u64>> = source.shards.iter().map(Shard::row_counts).collect();
        let plan = match config.mixture {
            None => Plan::new(&row_counts, &config.plan)?,
            Some(_) => {
                let seed = key_of(&[config.plan.seed, 3, index as u64]);
                let plan = Plan::new(&row_counts, &PlanConfig { seed, ..config.plan.clone() });
                plan.map_err(|error| Error::Source { name: source.name.clone(), error: Box::new(error) })?
            }
        };
        let plan = plan.with_first_shard(first_shard);
        first_shard += source.shards.len();
        Ok(plan)
    };
    sources.iter().enumerate().map(plan).collect()
}

fn shard_identity(shard: &Shard) -> ShardIdentity {
    ShardIdentity {
        name: shard.name(),
        size_bytes: shard.size_bytes(),
        num_rows: shard.row_counts().iter().sum(),
        num_row_groups: shard.row_counts().len() as u64,
        footer: shard.footer_hash().to_string(),
    }
}
