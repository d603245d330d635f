//! How data names the parts of a conversation: which columns or keys hold what.

use crate::error::{Error, Result};

/// A layout of conversations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    kind: Kind,
    /// The column that holds the messages.
    pub(super) column: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Messages,
    ShareGpt,
    Alpaca,
}

/// Keys of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    pub(super) role: &'static str,
    pub(super) content: &'static str,
}

/// The columns of an instruction and its answer; the first and the last must be there.
pub(super) const ALPACA_COLUMNS: [&str; 4] = ["instruction", "input", "system", "output"];

/// Keys of a part of a message.
pub(super) const PART_KEYS: [&str; 2] = ["type", "text"];

impl Layout {
    /// `messages` (a list of role and content), `sharegpt` (a list of from and value) or `alpaca` (instruction, input
    /// and output); `column` overrides the name of the list's column.
    ///
    /// # Errors
    /// Another name.
    pub fn parse(layout: &str, column: Option<&str>) -> Result<Self> {
        let (kind, usual) = match layout {
            "messages" => (Kind::Messages, "messages"),
            "sharegpt" => (Kind::ShareGpt, "conversations"),
            "alpaca" => (Kind::Alpaca, "instruction"),
            other => {
                let rule = "expected `messages`, `sharegpt` or `alpaca`";
                return Err(Error::config("layout", format!("`{other}`"), rule));
            }
        };
        Ok(Self { kind, column: column.unwrap_or(usual).into() })
    }

    /// Its name and column, as a state holds them.
    pub fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Messages => "messages",
            Kind::ShareGpt => "sharegpt",
            Kind::Alpaca => "alpaca",
        };
        format!("{kind}/{}", self.column)
    }

    /// The keys of a message; none where a row is an instruction and its answer.
    pub(super) fn keys(&self) -> Option<Keys> {
        match self.kind {
            Kind::Messages => Some(Keys { role: "role", content: "content" }),
            Kind::ShareGpt => Some(Keys { role: "from", content: "value" }),
            Kind::Alpaca => None,
        }
    }

    /// The role that data calls `name`.
    pub(super) fn role<'a>(&self, name: &'a [u8]) -> &'a [u8] {
        match (self.kind, name) {
            (Kind::ShareGpt, b"human") => b"user",
            (Kind::ShareGpt, b"gpt" | b"chatgpt" | b"model" | b"bot") => b"assistant",
            _ => name,
        }
    }
}
