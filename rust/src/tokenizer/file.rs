//! Which format a vocabulary file has, by its content; what is none of them is refused by name. Nothing in a file is run.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::bounded::MAX_FILE_BYTES;
use crate::error::{Error, Place, Result};

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Hugging Face's `tokenizer.json`, or nanofast's own.
    Json,
    /// `.tiktoken`: lines of base64 and a rank. Some models' `tokenizer.model` is one, too.
    Tiktoken,
}

/// The bytes of a file.
///
/// # Errors
/// When it cannot be read, is no regular file, or is larger than any vocabulary.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |source| Error::io(Place::shard(path), source);
    let refuse = |reason: String| Error::Vocabulary { name: path.display().to_string(), reason };
    // A pipe would wait for a writer when opened.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return Err(refuse("it is a folder; name the file in it, for example tokenizer.json".into()));
    }
    if !metadata.is_file() {
        return Err(refuse("it is no regular file".into()));
    }
    let too_large =
        |bytes: u64| refuse(format!("it has {bytes} bytes; a vocabulary has at most {MAX_FILE_BYTES}"));
    if metadata.len() > MAX_FILE_BYTES {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

/// The format of `bytes`, which come from `path`, or what they are instead.
pub(super) fn format(path: &Path, bytes: &[u8]) -> std::result::Result<Format, String> {
    let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default().to_ascii_lowercase();
    let text = bytes.trim_ascii_start();
    match *text {
        [] => Err("it is empty".into()),
        [0x80, 2..=5, ..] => Err(PICKLE.into()),
        _ if extension == "pkl" || extension == "pickle" => Err(PICKLE.into()),
        [b'P', b'K', 3, 4, ..] => Err("it is a zip archive (torch.save writes these, too); unpack it".into()),
        [0x1f, 0x8b, ..] => Err("it is compressed with gzip; unpack it".into()),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Err("it is compressed with zstd; unpack it".into()),
        [b'{', ..] => Ok(Format::Json),
        _ if extension == "tiktoken" || is_ranked(text) => Ok(Format::Tiktoken),
        _ if is_sentencepiece(bytes) => {
            Err("it is a SentencePiece model; only byte-level BPE is supported".into())
        }
        _ if extension == "json" => Err("it does not begin with `{`; expected a tokenizer.json".into()),
        _ => Err("it is neither a tokenizer.json nor a .tiktoken file".into()),
    }
}

const PICKLE: &str = "it is a pickle, which can run any code when it is read; \
    if you trust it, unpickle it yourself and give the tiktoken.Encoding to Tokenizer.from_tiktoken";

/// Whether the first line is base64 and a number.
fn is_ranked(text: &[u8]) -> bool {
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    let mut words = line.splitn(2, |&byte| byte == b' ');
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    let token = words.next().is_some_and(|token| !token.is_empty() && token.iter().all(is_base64));
    token && words.next().is_some_and(|rank| !rank.is_empty() && rank.iter().all(u8::is_ascii_digit))
}

/// Whether the bytes are a protobuf message whose first field is a piece: a message with a text first, then a score.
fn is_sentencepiece(bytes: &[u8]) -> bool {
    match *bytes {
        [0x0a, length, 0x0a, text, ..] => text < length && bytes.get(4 + usize::from(text)) == Some(&0x15),
        _ => false,
    }
}
