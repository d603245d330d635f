//! Why a text, or a document of a batch, has no ids.

use std::fmt;

use crate::error::{Error, Place};

/// Why a text has no ids.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// It is not UTF-8.
    InvalidUtf8 {
        /// Byte offset of the first bad byte.
        byte: usize,
    },
    /// It holds a surrogate, which Python strings may and UTF-8 may not.
    Surrogate {
        /// Index of the first one among its characters.
        character: usize,
    },
    /// It is 4 GiB or longer.
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The split pattern's engine gave up on it.
    Split {
        /// What the engine said.
        reason: String,
    },
    /// A library panicked on it.
    Panic {
        /// The panic's message.
        reason: String,
    },
    /// It is no conversation that can be rendered.
    Conversation {
        /// The message at fault, counted from 0; none where there is no message.
        message: Option<usize>,
        /// What is wrong with it.
        reason: String,
    },
}

impl EncodeError {
    /// The crate's error, for a text that messages call `what`.
    pub(crate) fn at(self, what: &str) -> Error {
        let place = Place::shard(what);
        match self {
            Self::InvalidUtf8 { byte } => Error::InvalidUtf8 { place, byte },
            other => Error::Tokenize { place, reason: other.to_string() },
        }
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidUtf8 { byte } => write!(f, "invalid UTF-8 at byte {byte}"),
            Self::Surrogate { character } => {
                write!(f, "character {character} is a surrogate, which has no UTF-8; pass errors=\"replace\"")
            }
            Self::TooLong { bytes } => write!(f, "a document of {bytes} bytes; the most are {}", u32::MAX),
            Self::Split { reason } => f.write_str(reason),
            Self::Panic { reason } => write!(f, "the encoder panicked: {reason}"),
            Self::Conversation { message: Some(message), reason } => write!(f, "message {message}: {reason}"),
            Self::Conversation { message: None, reason } => f.write_str(reason),
        }
    }
}

impl std::error::Error for EncodeError {}

/// Why a batch has no ids from document `document` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentError {
    /// Index of the document in its batch.
    pub document: usize,
    /// What is wrong with it.
    pub error: EncodeError,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "document {}: {}", self.document, self.error)
    }
}

impl std::error::Error for DocumentError {}
