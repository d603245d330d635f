//! What the first bytes and the length of a file say: format, width of an id, where the ids begin and how many.

use std::fs::File;
use std::path::Path;

use crate::error::{Error, Place, Result};
use crate::read_at::read_exact_at;

/// int32 of the header of an llm.c file: magic number, version, number of tokens, zeros.
const HEADER_BYTES: u64 = 256 * 4;
/// (magic number, version, width) of the two kinds of llm.c files: for GPT-2's and for Llama 3's vocabulary.
const LLM_C: [(i32, i32, Width); 2] = [(20240520, 1, Width::U16), (20240801, 7, Width::U32)];
const NPY_MAGIC: &[u8] = b"\x93NUMPY";

/// How ids are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Nothing but ids.
    Flat,
    /// A header of 256 int32.
    LlmC,
    /// numpy's own.
    Npy,
}

impl Format {
    /// From the names that users write.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "flat" => Ok(Self::Flat),
            "llm.c" => Ok(Self::LlmC),
            "npy" => Ok(Self::Npy),
            other => {
                Err(Error::config("format", format!("`{other}`"), "expected `flat`, `llm.c`, `npy` or None"))
            }
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::LlmC => "llm.c",
            Self::Npy => "npy",
        }
    }
}

/// Bytes of an id, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Two.
    U16,
    /// Four.
    U32,
}

impl Width {
    /// From numpy's names.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "uint16" => Ok(Self::U16),
            "uint32" => Ok(Self::U32),
            other => Err(Error::config("dtype", format!("`{other}`"), "expected `uint16`, `uint32` or None")),
        }
    }

    /// numpy's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::U16 => "uint16",
            Self::U32 => "uint32",
        }
    }

    /// Bytes of an id.
    pub fn bytes(self) -> u64 {
        match self {
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }
}

/// Where the ids of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// How they are framed.
    pub format: Format,
    /// How wide they are.
    pub width: Width,
    /// Where the first one begins.
    pub data_offset: u64,
    /// How many there are.
    pub num_tokens: u64,
}

impl Layout {
    /// Reads the header of an open file of `size_bytes`. What `format` and `width` leave open is found out: llm.c and
    /// npy by their magic numbers; what has none is flat, and uint16 as nanoGPT writes it.
    ///
    /// # Errors
    /// A file that is too short or too long for its header, has a wrong magic number, or ends within an id.
    pub fn read(
        path: &Path,
        file: &File,
        size_bytes: u64,
        format: Option<Format>,
        width: Option<Width>,
    ) -> Result<Self> {
        let mut head = vec![0; size_bytes.min(HEADER_BYTES) as usize];
        read_exact_at(file, &mut head, 0).map_err(|source| Error::io(Place::shard(path), source))?;
        let found = match format.unwrap_or_else(|| guessed(&head, size_bytes)) {
            Format::LlmC => llm_c(&head, size_bytes),
            Format::Npy => npy(&head, size_bytes),
            Format::Flat => flat(size_bytes, width.unwrap_or(Width::U16)),
        };
        let layout = found.map_err(|reason| Error::TokenFile { path: path.into(), reason })?;
        match width {
            Some(width) if width != layout.width => Err(Error::TokenFile {
                path: path.into(),
                reason: format!(
                    "its header says {}; dtype={} was asked for",
                    layout.width.name(),
                    width.name()
                ),
            }),
            _ => Ok(layout),
        }
    }
}

/// By the magic number; a header that would be llm.c's but for its magic number counts as one, to be refused by name.
fn guessed(head: &[u8], size_bytes: u64) -> Format {
    if head.starts_with(NPY_MAGIC) {
        return Format::Npy;
    }
    let Some([magic, version, count]) = llm_c_numbers(head) else { return Format::Flat };
    let is_rest_zero = head[12..].iter().all(|&byte| byte == 0);
    let num_tokens = u64::try_from(count).ok();
    let fits =
        num_tokens.is_some_and(|count| [2, 4].iter().any(|width| count * width + HEADER_BYTES == size_bytes));
    let known = LLM_C.iter().any(|known| known.0 == magic);
    match is_rest_zero && (known || (fits && (0..100).contains(&version))) {
        true => Format::LlmC,
        false => Format::Flat,
    }
}

fn llm_c_numbers(head: &[u8]) -> Option<[i32; 3]> {
    let number = |at: usize| Some(i32::from_le_bytes(head.get(4 * at..)?.first_chunk().copied()?));
    (head.len() as u64 == HEADER_BYTES).then_some([number(0)?, number(1)?, number(2)?])
}

fn llm_c(head: &[u8], size_bytes: u64) -> std::result::Result<Layout, String> {
    let Some([magic, version, count]) = llm_c_numbers(head) else {
        return Err(format!("{size_bytes} bytes are too few for an llm.c header of {HEADER_BYTES}"));
    };
    let Some((_, known, width)) = LLM_C.into_iter().find(|kind| kind.0 == magic) else {
        let (gpt2, llama3) = (LLM_C[0].0, LLM_C[1].0);
        return Err(format!(
            "its magic number is {magic}; expected {gpt2} (uint16) or {llama3} (uint32) of llm.c; write it again, or \
             pass format=\"flat\" if it has no header"
        ));
    };
    if version != known {
        return Err(format!("it is of version {version}; expected {known} with magic number {magic}"));
    }
    let num_tokens = u64::try_from(count).map_err(|_| format!("its header states {count} tokens"))?;
    let expected = HEADER_BYTES + num_tokens * width.bytes();
    if expected != size_bytes {
        return Err(of_wrong_length(num_tokens, width, expected, size_bytes));
    }
    Ok(Layout { format: Format::LlmC, width, data_offset: HEADER_BYTES, num_tokens })
}

fn flat(size_bytes: u64, width: Width) -> std::result::Result<Layout, String> {
    if !size_bytes.is_multiple_of(width.bytes()) {
        return Err(format!(
            "{size_bytes} bytes are no whole number of {} ids; it is cut short, or has another dtype",
            width.name()
        ));
    }
    Ok(Layout { format: Format::Flat, width, data_offset: 0, num_tokens: size_bytes / width.bytes() })
}

/// numpy's format, versions 1 to 3: magic, version, length of the header, a Python dict as text.
fn npy(head: &[u8], size_bytes: u64) -> std::result::Result<Layout, String> {
    let cut = || format!("{size_bytes} bytes end within the header of an npy file");
    if !head.starts_with(NPY_MAGIC) {
        return Err("it does not begin as an npy file does (`\\x93NUMPY`)".into());
    }
    let major = *head.get(6).ok_or_else(cut)?;
    let (begin, length) = match major {
        1 => (10, head.get(8..10).map(|at| u64::from(u16::from_le_bytes([at[0], at[1]])))),
        2 | 3 => (12, head.get(8..12).and_then(|at| Some(u64::from(u32::from_le_bytes(*at.first_chunk()?))))),
        _ => return Err(format!("it is of npy version {major}; expected 1, 2 or 3")),
    };
    let data_offset = begin + length.ok_or_else(cut)?;
    let text = head.get(begin as usize..data_offset as usize).ok_or_else(cut)?;
    let text = String::from_utf8_lossy(text);
    let value = |key: &str| text.split_once(&format!("'{key}':")).map(|(_, value)| value.trim_start());
    let dtype = value("descr").and_then(|value| value.split('\'').nth(1)).unwrap_or_default();
    let width = match dtype {
        "<u2" => Width::U16,
        "<u4" | "<i4" => Width::U32,
        other => {
            return Err(format!(
                "its dtype is `{other}`; expected `<u2`, `<u4` or `<i4` (.astype(np.uint16))"
            ));
        }
    };
    let shape =
        value("shape").and_then(|value| value.strip_prefix('(')?.split_once(')')).map(|(shape, _)| shape);
    let num_tokens = shape.and_then(|shape| shape.trim().trim_end_matches(',').parse::<u64>().ok());
    let Some(num_tokens) = num_tokens else {
        return Err(format!("its shape is ({}); expected one dimension", shape.unwrap_or("?")));
    };
    let expected = num_tokens.saturating_mul(width.bytes()).saturating_add(data_offset);
    if expected != size_bytes {
        return Err(of_wrong_length(num_tokens, width, expected, size_bytes));
    }
    Ok(Layout { format: Format::Npy, width, data_offset, num_tokens })
}

fn of_wrong_length(num_tokens: u64, width: Width, expected: u64, found: u64) -> String {
    let how = if found < expected { "truncated" } else { "too long" };
    format!(
        "it is {how}: its header states {num_tokens} {} ids, so expected {expected} bytes and found {found}; fetch or \
         write it again",
        width.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_a_negative_count_of_an_unknown_kind_is_none() {
        let mut head = vec![0; HEADER_BYTES as usize];
        head[8..12].copy_from_slice(&(-1_i32).to_le_bytes());
        assert_eq!(guessed(&head, HEADER_BYTES), Format::Flat);
        head[8..12].copy_from_slice(&3_i32.to_le_bytes());
        assert_eq!(guessed(&head, HEADER_BYTES + 6), Format::LlmC, "to be refused by its magic number");
    }
}
