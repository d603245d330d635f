//! What a batch of conversations will be made of: special tokens and stretches of text, and which of it is learned.
//!
//! ```text
//! steps      Special(bos) Special(user_start) Segment Special(user_end) … End
//! segments                                    a range of the conversation, or of `joined` words of the template
//! ```

use std::ops::Range;

use super::overlaps::Overlaps;
use super::template::Piece;
use crate::ragged::{DocumentBatch, NOT_LEARNED, TokenBatch};
use crate::tokenizer::encoder::validated;
use crate::tokenizer::{EncodeError, Tokenizer};

/// What a batch of conversations will be made of, in order.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    steps: Vec<Step>,
    segments: Vec<Segment>,
    /// Texts that lie nowhere in one piece: the template's words, with what is said next to them.
    joined: Vec<u8>,
    /// Of joined texts: ends within `joined`, and whether what lies before is learned.
    marks: Vec<(usize, bool)>,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Special {
        id: u32,
        learned: bool,
    },
    Segment,
    /// The conversation ends.
    End,
}

/// Where in a batch of conversations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) document: usize,
    /// The message; none in front of the first one.
    pub(super) message: Option<usize>,
}

/// A text that is encoded in one piece.
#[derive(Clone, Debug)]
struct Segment {
    place: Place,
    text: Text,
    learned: Learned,
}

#[derive(Clone, Debug)]
enum Text {
    /// A range of the conversation's bytes.
    Said(Range<usize>),
    /// A range of `joined`.
    Joined(Range<usize>),
}

#[derive(Clone, Debug)]
enum Learned {
    Whole(bool),
    /// A range of `marks`.
    Marked(Range<usize>),
}

/// The text at hand, before the next special token.
#[derive(Clone, Debug)]
enum Open {
    Said { range: Range<usize>, learned: bool },
    Joined { start: usize, first_mark: usize },
}

/// Where a sheet ends.
pub(super) type Mark = (usize, usize, usize, usize);

impl Sheet {
    pub(super) fn clear(&mut self) {
        self.return_to((0, 0, 0, 0));
    }

    pub(super) fn mark(&self) -> Mark {
        (self.steps.len(), self.segments.len(), self.joined.len(), self.marks.len())
    }

    /// Takes back what was written behind `mark`.
    pub(super) fn return_to(&mut self, (steps, segments, joined, marks): Mark) {
        self.steps.truncate(steps);
        self.segments.truncate(segments);
        self.joined.truncate(joined);
        self.marks.truncate(marks);
        self.open = None;
    }

    /// Texts to be encoded.
    pub(super) fn num_texts(&self) -> usize {
        self.segments.len()
    }

    /// The `index`-th of them …
    pub(super) fn text<'a>(&'a self, index: usize, documents: &'a DocumentBatch) -> &'a [u8] {
        let segment = &self.segments[index];
        match &segment.text {
            Text::Said(range) => &documents.document(segment.place.document)[range.clone()],
            Text::Joined(range) => &self.joined[range.clone()],
        }
    }

    /// … as UTF-8, and with what lies behind it, where `conversations` are those of `documents` that are UTF-8 as a whole …
    pub(super) fn valid<'a>(
        &'a self,
        index: usize,
        documents: &'a DocumentBatch,
        conversations: &[Option<&'a str>],
    ) -> Result<(&'a str, &'a [u8]), EncodeError> {
        let segment = &self.segments[index];
        if let Text::Said(range) = &segment.text
            && let Some(conversation) = conversations[segment.place.document]
            && let Some(text) = conversation.get(range.clone())
        {
            return Ok((text, &conversation.as_bytes()[range.start..]));
        }
        validated(self.text(index, documents)).map(|text| (text, text.as_bytes()))
    }

    /// … and where it is said.
    pub(super) fn place(&self, index: usize) -> Place {
        self.segments[index].place
    }

    /// The ids of the first `num_documents` conversations, from those of their texts.
    pub(super) fn weave(
        &self,
        encoded: &TokenBatch,
        num_documents: usize,
        tokenizer: &Tokenizer,
        learns_all: bool,
        out: &mut TokenBatch,
    ) {
        let bit = |learned: bool| if learned || learns_all { 0 } else { NOT_LEARNED };
        let begin = out.num_tokens();
        // Room for all, and for what copying in whole vectors writes too much.
        let values = out.values_mut();
        values.resize(begin + encoded.num_tokens() + self.steps.len() + LANES, 0);
        let (mut documents, mut index, mut end) = (0, 0, begin);
        let mut ends = Vec::with_capacity(num_documents);
        for step in &self.steps {
            if documents == num_documents {
                break;
            }
            match *step {
                Step::Special { id, learned } => {
                    values[end] = id | bit(learned);
                    end += 1;
                }
                Step::Segment => {
                    let range = encoded.range(index);
                    let to = &mut values[end..];
                    match &self.segments[index].learned {
                        Learned::Whole(learned) => {
                            copy_with(bit(*learned), encoded.values(), range.clone(), to)
                        }
                        Learned::Marked(marks) => {
                            let Text::Joined(text) = &self.segments[index].text else { continue };
                            let mut learned = Overlaps::new(&self.marks[marks.clone()], text.start);
                            for (to, &token) in to.iter_mut().zip(&encoded.values()[range.clone()]) {
                                let length = tokenizer.token_bytes(token).map_or(0, <[u8]>::len);
                                *to = token | bit(learned.next(length));
                            }
                        }
                    }
                    end += range.len();
                    index += 1;
                }
                Step::End => {
                    ends.push(end);
                    documents += 1;
                }
            }
        }
        values.truncate(ends.last().copied().unwrap_or(begin));
        ends.into_iter().for_each(|end| out.end_document_at(end));
    }

    /// Ends the conversation at hand.
    pub(super) fn end(&mut self) {
        self.steps.push(Step::End);
    }

    /// Makes the special token that was written last one that is learned.
    pub(super) fn learn_last(&mut self) {
        if let Some(Step::Special { learned, .. }) = self.steps.last_mut() {
            *learned = true;
        }
    }

    /// Adds bytes of the conversation to the text at hand.
    pub(super) fn say(&mut self, conversation: &[u8], range: Range<usize>, learned: bool) {
        if range.is_empty() {
            return;
        }
        if self.open.is_none() {
            self.open = Some(Open::Said { range, learned });
            return;
        }
        self.join(conversation);
        self.joined.extend_from_slice(&conversation[range]);
        self.marks.push((self.joined.len(), learned));
    }

    /// Adds words of the template to the text at hand, or a special token behind it.
    pub(super) fn recite(&mut self, pieces: &[Piece], learned: bool, conversation: &[u8], place: Place) {
        for piece in pieces {
            match piece {
                Piece::Special(id) => {
                    self.close(place);
                    self.steps.push(Step::Special { id: *id, learned });
                }
                Piece::Text(words) => self.add_words(words, conversation, learned),
            }
        }
    }

    /// Adds words that are not the conversation's to the text at hand.
    pub(super) fn add_words(&mut self, words: &str, conversation: &[u8], learned: bool) {
        self.join(conversation);
        self.joined.extend_from_slice(words.as_bytes());
        self.marks.push((self.joined.len(), learned));
    }

    /// Makes the text at hand one that more can be added to.
    fn join(&mut self, conversation: &[u8]) {
        let begun = Open::Joined { start: self.joined.len(), first_mark: self.marks.len() };
        match self.open.take() {
            None => self.open = Some(begun),
            Some(Open::Said { range, learned }) => {
                self.joined.extend_from_slice(&conversation[range]);
                self.marks.push((self.joined.len(), learned));
                self.open = Some(begun);
            }
            joined => self.open = joined,
        }
    }

    /// Ends the text at hand.
    pub(super) fn close(&mut self, place: Place) {
        let (text, learned) = match self.open.take() {
            None => return,
            Some(Open::Said { range, learned }) => (Text::Said(range), Learned::Whole(learned)),
            Some(Open::Joined { start, first_mark }) => {
                let marks = &self.marks[first_mark..];
                let first = marks.first().is_some_and(|&(_, learned)| learned);
                let learned = match marks.iter().all(|&(_, learned)| learned == first) {
                    true => Learned::Whole(first),
                    false => Learned::Marked(first_mark..self.marks.len()),
                };
                (Text::Joined(start..self.joined.len()), learned)
            }
        };
        self.segments.push(Segment { place, text, learned });
        self.steps.push(Step::Segment);
    }
}

/// Tokens that are copied at once.
const LANES: usize = 8;

/// Copies `tokens[range]`, each with `bit`, to the front of `to`, which has room for `LANES` more; what lies there then is of
/// no meaning.
#[inline]
fn copy_with(bit: u32, tokens: &[u32], range: Range<usize>, to: &mut [u32]) {
    let to = &mut to[..range.len() + LANES];
    let mut at = 0;
    while at < range.len() {
        let from = &tokens[range.start + at..];
        match from.first_chunk::<LANES>() {
            Some(from) => to[at..at + LANES].copy_from_slice(&from.map(|token| token | bit)),
            None => to[at..].iter_mut().zip(from).for_each(|(to, token)| *to = token | bit),
        }
        at += LANES;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_copied_whole_wherever_they_end() {
        let tokens: Vec<u32> = (1..40).collect();
        for start in 0..tokens.len() {
            for end in start..=tokens.len() {
                let mut to = [0; 48];
                copy_with(NOT_LEARNED, &tokens, start..end, &mut to);
                let expected: Vec<u32> = tokens[start..end].iter().map(|token| token | NOT_LEARNED).collect();
                assert_eq!(to[..end - start], expected);
                assert!(to[end - start + LANES..].iter().all(|&token| token == 0));
            }
        }
    }
}
