//! A chat template: which special tokens and words stand around what is said. Data, checked against a vocabulary.
//!
//! ```text
//! nanochat  <|bos|> <|user_start|> hi <|user_end|> <|assistant_start|> hello <|assistant_end|>
//!           └ bos   └ start           └ end        └ start             ▔▔▔▔▔ learned ▔▔▔▔▔▔▔▔▔
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// The roles that conversations are made of.
pub(super) const ROLES: [&str; 3] = ["user", "assistant", "system"];
pub(super) const USER: usize = 0;
pub(super) const ASSISTANT: usize = 1;
pub(super) const SYSTEM: usize = 2;

/// What stands around messages. Strings may hold special tokens, those that `special_tokens` lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatTemplate {
    /// Its name in messages.
    pub name: String,
    /// What is a special token in the other fields.
    pub special_tokens: Vec<String>,
    /// In front of each conversation; may be empty.
    pub bos: String,
    /// What stands around a message, by role. Without `system`, its message is merged into the first user's.
    pub turns: BTreeMap<String, Turn>,
    /// What stands around the parts of an assistant's message that are no text: `python`, `python_output`.
    pub parts: BTreeMap<String, Part>,
    /// The special token that fills rows.
    pub pad: String,
    /// Whether white space around what is said is taken off.
    pub trim: bool,
    /// Roles whose messages are learned.
    pub learned_roles: Vec<String>,
    /// Whether only the last message of a learned role is learned.
    pub only_last_turn: bool,
}

/// What stands around a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// In front of it; never learned.
    pub start: String,
    /// Behind it; learned where the message is.
    pub end: String,
    /// Behind that; never learned.
    pub after: String,
}

/// What stands around a part of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// In front of it.
    pub start: String,
    /// Behind it.
    pub end: String,
    /// Whether it is learned, with what stands around it, where the message is.
    pub learned: bool,
}

/// A stretch of a template's string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Special(u32),
    Text(String),
}

/// A turn whose special tokens have ids.
#[derive(Clone, Debug)]
pub(super) struct TurnPieces {
    pub(super) role: &'static str,
    pub(super) start: Vec<Piece>,
    pub(super) end: Vec<Piece>,
    pub(super) after: Vec<Piece>,
    pub(super) learned: bool,
}

/// A part whose special tokens have ids.
#[derive(Clone, Debug)]
pub(super) struct PartPieces {
    pub(super) start: Vec<Piece>,
    pub(super) end: Vec<Piece>,
    pub(super) learned: bool,
}

impl ChatTemplate {
    /// Hex of a SHA-256 over everything in it: equal fingerprints render alike.
    pub fn fingerprint(&self) -> String {
        let json = serde_json::to_string(self).expect("strings, lists and truth values are always JSON");
        Sha256::digest(json.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The special tokens that `tokenizer` lacks, in the template's order.
    fn missing_tokens(&self, tokenizer: &Tokenizer) -> Vec<String> {
        let missing = |token: &&String| id_of(tokenizer, token).is_none();
        self.special_tokens.iter().filter(missing).cloned().collect()
    }

    /// Refuses what no conversation could be rendered with.
    pub(super) fn check(&self, tokenizer: &Tokenizer) -> Result<()> {
        let refuse = |rule: String| Err(Error::config("template", format!("`{}`", self.name), rule));
        let missing = self.missing_tokens(tokenizer);
        if !missing.is_empty() {
            let names: Vec<_> = missing.iter().map(|token| format!("`{token}`")).collect();
            return refuse(format!(
                "the tokenizer `{}` lacks its special tokens {}; add them (with_special_tokens, --add-special-tokens) \
                 or choose another template",
                tokenizer.name(),
                names.join(", ")
            ));
        }
        if let Some(role) = ["user", "assistant"].iter().find(|&&role| !self.turns.contains_key(role)) {
            return refuse(format!("no turn for the role `{role}`"));
        }
        let roles = self.turns.keys().chain(&self.learned_roles);
        if let Some(role) = roles.into_iter().find(|role| !ROLES.contains(&role.as_str())) {
            return refuse(format!("role `{role}`; expected one of {}", ROLES.join(", ")));
        }
        if self.learned_roles.is_empty() {
            return refuse("no role is learned; learned_roles names one at least".into());
        }
        if !self.special_tokens.contains(&self.pad) {
            return refuse(format!("pad `{}` is none of its special tokens", self.pad));
        }
        Ok(())
    }

    /// A string of the template as special tokens and the text between them. The longest token that fits is taken.
    pub(super) fn pieces(&self, tokenizer: &Tokenizer, mut text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while !text.is_empty() {
            let found = self.special_tokens.iter().filter(|token| !token.is_empty()).filter_map(|token| {
                text.find(token.as_str()).map(|at| (at, std::cmp::Reverse(token.len()), token))
            });
            let Some((at, _, token)) = found.min() else {
                pieces.push(Piece::Text(text.into()));
                break;
            };
            if at > 0 {
                pieces.push(Piece::Text(text[..at].into()));
            }
            pieces.extend(id_of(tokenizer, token).map(Piece::Special));
            text = &text[at + token.len()..];
        }
        pieces
    }
}

/// The id of the special token `content`.
pub(super) fn id_of(tokenizer: &Tokenizer, content: &str) -> Option<u32> {
    tokenizer.special_tokens().iter().find(|special| special.content == content).map(|special| special.id)
}
