//! A conversation as bytes: what becomes of a row of messages, one document of a `DocumentBatch`.
//!
//! ```text
//! field         tag (1 byte), length (4 bytes, little-endian), bytes
//! conversation  Role "user", Text "hi", Role "assistant", Text "one moment", Python "1 + 1", PythonOutput "2"
//! ```
//! Whoever reads data writes fields as it finds them; whoever renders judges them. So a row that is no conversation
//! is a document as well, one that says what is wrong with it, and costs itself alone.

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    /// Begins a message: who speaks.
    Role = b'r',
    /// Something said.
    Text = b't',
    /// A call of a tool.
    Python = b'p',
    /// What a tool answered.
    PythonOutput = b'o',
    /// A part of a message that nobody knows: its type.
    UnknownPart = b'u',
    /// What cannot be read of the message at hand, or of the row where there is none: the reason.
    Broken = b'b',
    /// No conversation: a text that is learned as it is.
    Document = b'd',
}

const FIELDS: [Field; 7] = [
    Field::Role,
    Field::Text,
    Field::Python,
    Field::PythonOutput,
    Field::UnknownPart,
    Field::Broken,
    Field::Document,
];

impl Field {
    /// The part of a message that data calls `name`.
    pub fn part(name: &[u8]) -> Option<Self> {
        match name {
            b"text" => Some(Self::Text),
            b"python" => Some(Self::Python),
            b"python_output" => Some(Self::PythonOutput),
            _ => None,
        }
    }

    /// The name that data calls a part of a message by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::PythonOutput => "python_output",
            _ => "text",
        }
    }
}

/// Appends a field to a conversation's bytes.
///
/// # Panics
/// When the field is 4 GiB or longer.
#[inline]
pub fn push_field(conversation: &mut Vec<u8>, field: Field, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("a page or line of text is at most 2 GiB");
    let [a, b, c, d] = length.to_le_bytes();
    conversation.reserve(5 + bytes.len());
    conversation.extend_from_slice(&[field as u8, a, b, c, d]);
    conversation.extend_from_slice(bytes);
}

/// The fields of a conversation, each with where its bytes lie.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    conversation: &'a [u8],
    position: usize,
}

impl<'a> Fields<'a> {
    /// Over bytes that `push_field` wrote; what else they hold is passed over.
    pub fn new(conversation: &'a [u8]) -> Self {
        Self { conversation, position: 0 }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (Field, std::ops::Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, _) = self.conversation.get(self.position..)?.split_first_chunk::<5>()?;
        let field = FIELDS.into_iter().find(|&field| field as u8 == head[0])?;
        let start = self.position + head.len();
        let end = start + u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        self.position = end;
        (end <= self.conversation.len()).then_some((field, start..end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_were_written() {
        let mut conversation = Vec::new();
        for field in FIELDS {
            push_field(&mut conversation, field, format!("{field:?}").as_bytes());
        }
        let found: Vec<_> = Fields::new(&conversation).collect();
        assert_eq!(found.iter().map(|(field, _)| *field).collect::<Vec<_>>(), FIELDS);
        for (field, range) in found {
            assert_eq!(&conversation[range], format!("{field:?}").as_bytes());
        }
        assert_eq!(Fields::new(&conversation[..conversation.len() - 1]).count(), FIELDS.len() - 1);
    }
}
