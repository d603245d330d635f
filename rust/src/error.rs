//! One error type for the whole crate: what failed, where, what was expected, what was found, what to do.
//!
//! Variants carry data; nothing is turned into a string before the Python boundary (`bindings/error.rs`).
//! What belongs to the protocol (a full ring, an input that is not there yet) is a value, never an error.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Where in the data something happened.
///
/// ```
/// # use nanofast::error::Place;
/// assert_eq!(Place::row("a.parquet", 3, 17).to_string(), "`a.parquet`, row group 3, row 17");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The shard.
    pub path: PathBuf,
    /// Row group within the shard, where known.
    pub row_group: Option<usize>,
    /// Row within the row group, where known.
    pub row: Option<u64>,
}

impl Place {
    /// A whole shard.
    pub fn shard(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), row_group: None, row: None }
    }

    /// A row group of a shard.
    pub fn row_group(path: impl Into<PathBuf>, row_group: usize) -> Self {
        Self { path: path.into(), row_group: Some(row_group), row: None }
    }

    /// A row of a row group of a shard.
    pub fn row(path: impl Into<PathBuf>, row_group: usize, row: u64) -> Self {
        Self { path: path.into(), row_group: Some(row_group), row: Some(row) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.path.display())?;
        if let Some(row_group) = self.row_group {
            write!(f, ", row group {row_group}")?;
        }
        if let Some(row) = self.row {
            write!(f, ", row {row}")?;
        }
        Ok(())
    }
}

/// The exception of Python that a user of each error already catches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `FileNotFoundError`
    NotFound,
    /// `OSError`
    Io,
    /// `TypeError`
    Type,
    /// `ValueError`
    Value,
    /// `MemoryError`
    Memory,
    /// `RuntimeError`
    Runtime,
}

/// Everything that can go wrong. Cheap to clone, so that a failed loader can raise it again at every `next()`.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A named file or folder does not exist.
    #[error("no such file or folder: `{}`; check the path", path.display())]
    NotFound {
        /// What was asked for.
        path: PathBuf,
    },

    /// A folder, glob or list without a single parquet shard.
    #[error("no parquet shards in `{}` ({found}); expected files that end in `.parquet`", path.display())]
    NoShards {
        /// What was asked for.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },

    /// The operating system refused a read.
    #[error("cannot read {place}: {source}")]
    Io {
        /// Where.
        place: Place,
        /// The system's reason.
        source: Arc<io::Error>,
    },

    /// A server refused a read, or did not answer in time.
    #[error("cannot read `{}`: {reason}", path.display())]
    Remote {
        /// The object's URL, without anything secret.
        path: PathBuf,
        /// What came instead, and what to do.
        reason: String,
    },

    /// Bytes that are not what parquet says they should be.
    #[error(
        "bad parquet data in {place}: {reason}; the file is damaged or incomplete: fetch or write it again"
    )]
    Parquet {
        /// Where.
        place: Place,
        /// What the reader found.
        reason: String,
    },

    /// An encrypted parquet file.
    #[error("`{}` is encrypted; decrypt it first, encrypted parquet is not read", path.display())]
    Encrypted {
        /// The shard.
        path: PathBuf,
    },

    /// The text column does not exist.
    #[error("column `{column}` not in `{}` (has: {}); pass text_column=", path.display(), names(available))]
    MissingColumn {
        /// The shard.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// The columns there are.
        available: Vec<String>,
    },

    /// The text column holds something else than text.
    #[error("column `{column}` of `{}` is {found}; expected text (string, large_string, string_view or dictionary of these){}", path.display(), columns_that_do(candidates))]
    ColumnType {
        /// The shard.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// Its type.
        found: String,
        /// Columns that hold text.
        candidates: Vec<String>,
    },

    /// The column of messages holds something else.
    #[error("column `{column}` of `{}` is {found}; expected messages ({expected}, or JSON text); pass layout= or messages_column=", path.display())]
    MessagesType {
        /// The shard.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// Its type.
        found: String,
        /// The type of the layout.
        expected: String,
    },

    /// A row that is no conversation.
    #[error("bad conversation in {place}{}: {reason}", message_of(*message))]
    Conversation {
        /// Where.
        place: Place,
        /// The message at fault, counted from 0.
        message: Option<usize>,
        /// What is wrong with it, and what was expected.
        reason: String,
    },

    /// A lane whose conversations are all left out.
    #[error(
        "lane {lane} left out {num_documents} conversations in a row, more than an epoch has: none fits a row with a learned token; see metrics()[\"left_out\"], use a longer sequence_length, or another too_long="
    )]
    NothingLearned {
        /// The lane.
        lane: usize,
        /// How many it left out.
        num_documents: u64,
    },

    /// A document that is not valid UTF-8.
    #[error(
        "invalid UTF-8 in {place}, byte {byte} of the document; re-encode the file, or leave the document out"
    )]
    InvalidUtf8 {
        /// Where.
        place: Place,
        /// Byte offset within the document of the first bad byte.
        byte: usize,
    },

    /// A lane that has read all units of an epoch and found no document.
    #[error(
        "lane {lane} found no document in a whole epoch: all rows of its {num_units} units are left out; see the errors with on_bad_data=\"raise\""
    )]
    EmptyEpoch {
        /// The lane.
        lane: usize,
        /// Its units in the epoch.
        num_units: u64,
    },

    /// A shard changed between two reads.
    #[error("`{}` changed while it was in use ({what}: expected {expected}, found {found}); restore the file or begin a new loader", path.display())]
    Changed {
        /// The shard.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// The value at the start.
        expected: String,
        /// The value at the moment.
        found: String,
    },

    /// A token file whose length, header or type is not what its format says.
    #[error("bad token file `{}`: {reason}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What was expected and found, and what to do.
        reason: String,
    },

    /// A token that the vocabulary does not have.
    #[error("token {id} at offset {offset} of `{}` is outside of the vocabulary of {vocab_size}; the file was made with another tokenizer, or has another dtype", path.display())]
    TokenId {
        /// The file.
        path: PathBuf,
        /// Which token of the file, counted from 0.
        offset: u64,
        /// The token.
        id: u32,
        /// One past the largest id.
        vocab_size: u32,
    },

    /// A vocabulary that cannot be used.
    #[error("vocabulary `{name}`: {reason}")]
    Vocabulary {
        /// Its name or file.
        name: String,
        /// What is wrong, where, and what to do.
        reason: String,
    },

    /// What is wrong with one source of a mixture.
    #[error("source `{name}`: {error}")]
    Source {
        /// The source.
        name: String,
        /// The error without it.
        error: Box<Error>,
    },

    /// A setting that breaks a rule.
    #[error("{field} = {value}: {rule}")]
    Config {
        /// The setting's name.
        field: &'static str,
        /// Its value.
        value: String,
        /// The rule it breaks and what to do.
        rule: String,
    },

    /// A state that does not belong to this loader, or is no state at all.
    #[error("cannot resume: {reason}")]
    State {
        /// What does not match, with both values.
        reason: String,
    },

    /// Something that must match between a state and a loader does not.
    #[error(
        "cannot resume: {field} differs: the state has {expected}, this loader has {found}; build the loader as the state was"
    )]
    Identity {
        /// The name of what differs.
        field: String,
        /// The state's value.
        expected: String,
        /// The loader's value.
        found: String,
    },

    /// A text encoding failed or panicked inside a library.
    #[error("cannot tokenize {place}: {reason}")]
    Tokenize {
        /// Where.
        place: Place,
        /// What the encoder said.
        reason: String,
    },

    /// A bug: a thread panicked.
    #[error("internal error while {stage}{}: {reason}; please report it", at(place))]
    Panic {
        /// What the thread was doing.
        stage: &'static str,
        /// Where in the data.
        place: Option<Place>,
        /// The panic's message.
        reason: String,
    },

    /// The operating system gave no memory or no thread.
    #[error("cannot get {what}: {reason}")]
    Resource {
        /// What was asked for.
        what: &'static str,
        /// The system's reason.
        reason: String,
    },

    /// Memory that the limit leaves no room for.
    #[error(
        "memory_limit_bytes = {limit} is too small: {place} needs {wanted} bytes beside {held} that the ring, the caches and the documents in packers hold; allow at least {}",
        held.saturating_add(*wanted)
    )]
    MemoryLimit {
        /// What is to be read or tokenized.
        place: Place,
        /// Bytes that it takes.
        wanted: usize,
        /// Bytes held at that moment.
        held: usize,
        /// The limit.
        limit: usize,
    },

    /// Use after `close()`.
    #[error("the loader is closed; make a new one and load_state_dict() to go on")]
    Closed,

    /// Use in a process forked from the one that started the loader's threads.
    #[error(
        "the loader was started before a fork and does not work in the child; make it in the child, or pickle it there"
    )]
    Forked,
}

impl Error {
    /// A setting that breaks a rule.
    pub fn config(field: &'static str, value: impl ToString, rule: impl Into<String>) -> Self {
        Self::Config { field, value: value.to_string(), rule: rule.into() }
    }

    /// An I/O failure at a place; a file that is not there has its own error.
    pub fn io(place: Place, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path: place.path },
            _ => Self::Io { place, source: Arc::new(source) },
        }
    }

    /// A file that is not as long as it was.
    pub(crate) fn size_changed(path: &Path, expected: u64, found: u64) -> Self {
        let (expected, found) = (format!("{expected} bytes"), format!("{found} bytes"));
        Self::Changed { path: path.into(), what: "size", expected, found }
    }

    /// The Python exception it becomes.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Source { error, .. } => error.kind(),
            Self::NotFound { .. } | Self::NoShards { .. } => Kind::NotFound,
            Self::Io { .. } | Self::Remote { .. } => Kind::Io,
            Self::ColumnType { .. } | Self::MessagesType { .. } => Kind::Type,
            Self::MemoryLimit { .. } | Self::Resource { what: "memory", .. } => Kind::Memory,
            Self::Panic { .. } | Self::Resource { .. } | Self::Closed | Self::Forked => Kind::Runtime,
            _ => Kind::Value,
        }
    }
}

fn names(list: &[String]) -> String {
    match list {
        [] => "no columns".into(),
        _ => list.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    }
}

/// What a panic said, if it said anything.
pub(crate) fn said(panic: &(dyn std::any::Any + Send)) -> Option<&str> {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied())
}

fn columns_that_do(list: &[String]) -> String {
    match list {
        [] => "; no column of the file holds text".into(),
        _ => format!("; columns that would do: {}", names(list)),
    }
}

fn message_of(message: Option<usize>) -> String {
    message.map(|message| format!(", message {message}")).unwrap_or_default()
}

fn at(place: &Option<Place>) -> String {
    place.as_ref().map(|place| format!(" at {place}")).unwrap_or_default()
}
