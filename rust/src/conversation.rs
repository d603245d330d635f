//! A conversation as bytes: what becomes of a row of messages, one document of a `DocumentBatch`.
//!
//! ```text
//! field         head (5 bytes: what it is and its length, seven bits a byte), bytes
//! conversation  Role "user", Text "hi", Role "assistant", Text "one moment", Python "1 + 1", PythonOutput "2"
//! ```
//! Heads are ASCII, so a conversation is UTF-8 exactly where each of its fields is: one look at the whole tells of all.
//!
//! Whoever reads data writes fields as it finds them; whoever renders judges them. So a row that is no conversation
//! is a document as well, one that says what is wrong with it, and costs itself alone.

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Begins a message: who speaks.
    Role,
    /// Something said.
    Text,
    /// A call of a tool.
    Python,
    /// What a tool answered.
    PythonOutput,
    /// A part of a message that nobody knows: its type.
    UnknownPart,
    /// What cannot be read of the message at hand, or of the row where there is none: the reason.
    Broken,
    /// No conversation: a text that is learned as it is.
    Document,
}

/// In the order of their numbers.
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

/// Bytes in front of a field: its number and the highest four bits of its length, then seven bits of it a byte.
const HEAD_BYTES: usize = 5;

fn head(field: Field, length: u32) -> [u8; HEAD_BYTES] {
    let bits = |shift: u32| (length >> shift & 0x7f) as u8;
    [(field as u8) << 4 | (length >> 28) as u8, bits(21), bits(14), bits(7), bits(0)]
}

/// What `head` was made of; none where it was made of nothing.
fn field_and_length(head: [u8; HEAD_BYTES]) -> Option<(Field, usize)> {
    let [first, rest @ ..] = head;
    let field = *FIELDS.get(usize::from(first >> 4))?;
    let length =
        rest.iter().fold(usize::from(first & 0xf), |length, &byte| length << 7 | usize::from(byte & 0x7f));
    Some((field, length))
}

/// Appends a field to a conversation's bytes.
///
/// # Panics
/// When the field is 4 GiB or longer.
#[inline]
pub fn push_field(conversation: &mut Vec<u8>, field: Field, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("a page or line of text is at most 2 GiB");
    conversation.reserve(HEAD_BYTES + bytes.len());
    conversation.extend_from_slice(&head(field, length));
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

    /// The next field, if it is a `field`.
    #[inline]
    pub fn next_if(&mut self, field: Field) -> Option<std::ops::Range<usize>> {
        let is_next = self.conversation.get(self.position).is_some_and(|first| first >> 4 == field as u8);
        if is_next { self.next().map(|(_, range)| range) } else { None }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (Field, std::ops::Range<usize>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (head, _) = self.conversation.get(self.position..)?.split_first_chunk()?;
        let (field, length) = field_and_length(*head)?;
        let start = self.position + head.len();
        let end = start + length;
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
        for (field, range) in found.clone() {
            assert_eq!(&conversation[range], format!("{field:?}").as_bytes());
        }
        assert_eq!(Fields::new(&conversation[..conversation.len() - 1]).count(), FIELDS.len() - 1);
        let mut fields = Fields::new(&conversation);
        assert!(fields.next_if(Field::Text).is_none());
        assert_eq!(fields.next_if(Field::Role), Some(found[0].1.clone()));
        assert_eq!(fields.next().map(|(field, _)| field), Some(Field::Text));
    }

    #[test]
    fn heads_are_ascii_and_hold_every_length() {
        for field in FIELDS {
            for length in [0, 1, 127, 128, 255, 1 << 14, 1 << 21, (1 << 28) - 1, 1 << 28, u32::MAX] {
                let head = head(field, length);
                assert!(head.is_ascii(), "{head:?}");
                assert_eq!(field_and_length(head), Some((field, length as usize)));
            }
        }
        assert_eq!(field_and_length([0x7f, 0, 0, 0, 0]), None);
    }
}
