//! Split patterns as data: one or more regular expressions, each cutting what the one before left whole.

use serde::{Deserialize, Serialize};

/// How text is cut into pretokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pattern {
    /// Applied in turn; none leaves the text whole.
    pub stages: Vec<Stage>,
}

/// One regular expression over the pieces of the stage before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// The regular expression, in the syntax of `fancy-regex`.
    pub regex: String,
    /// Whether text between matches becomes pieces of its own (Hugging Face's `Isolated`) or is dropped (tiktoken).
    pub keep_gaps: bool,
}

impl Pattern {
    /// One expression, text between its matches dropped, as tiktoken does.
    pub fn tiktoken(regex: &str) -> Self {
        Self { stages: vec![Stage { regex: regex.into(), keep_gaps: false }] }
    }

    /// Feeds everything that decides the cuts to a hash.
    pub(super) fn describe(&self, field: &mut impl FnMut(&[u8])) {
        field(&(self.stages.len() as u64).to_le_bytes());
        for stage in &self.stages {
            field(stage.regex.as_bytes());
            field(&[u8::from(stage.keep_gaps)]);
        }
    }
}
