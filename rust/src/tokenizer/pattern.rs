//! Split patterns as data: one or more regular expressions, each cutting what the one before left whole.

use serde::{Deserialize, Serialize};

/// Expressions of a pattern at most; DeepSeek V3 has three.
const MAX_STAGES: usize = 16;

/// Bytes of an expression at most; GPT-4o's has 350.
const MAX_REGEX_BYTES: usize = 1 << 14;

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
    /// Whether it is read as Oniguruma reads it (Hugging Face), where `{1,3}+` repeats the repetition and `$` is a line's end.
    pub oniguruma: bool,
    /// Whether text between matches becomes pieces of its own (Hugging Face's `Isolated`) or is dropped (tiktoken).
    pub keep_gaps: bool,
}

impl Pattern {
    /// One expression, text between its matches dropped, as tiktoken does.
    pub fn tiktoken(regex: &str) -> Self {
        Self { stages: vec![Stage { regex: regex.into(), oniguruma: false, keep_gaps: false }] }
    }

    /// Refuses what no pattern in use comes near: compiling it would take too much time or memory.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.stages.len() > MAX_STAGES {
            return Err(format!(
                "a split pattern of {} expressions; at most {MAX_STAGES} are taken",
                self.stages.len()
            ));
        }
        match self.stages.iter().map(|stage| stage.regex.len()).find(|&length| length > MAX_REGEX_BYTES) {
            Some(length) => {
                Err(format!("a split pattern of {length} bytes; at most {MAX_REGEX_BYTES} are taken"))
            }
            None => Ok(()),
        }
    }

    /// Feeds everything that decides the cuts to a hash.
    pub(super) fn describe(&self, field: &mut impl FnMut(&[u8])) {
        field(&(self.stages.len() as u64).to_le_bytes());
        for stage in &self.stages {
            field(stage.regex.as_bytes());
            field(&[stage.oniguruma, stage.keep_gaps].map(u8::from));
        }
    }
}
