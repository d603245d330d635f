//! Conversations → ids, each marked where it is not learned.
//!
//! ```text
//! conversations ─▶ sheet: special tokens and stretches of text ─▶ all texts encoded at once ─▶ woven together
//! ```
//! Texts of many conversations are encoded together, since one message is too short to keep an encoder busy. What is
//! said is encoded as it is: text that looks like a special token is text. Words of the template are encoded with what
//! follows or precedes them up to the next special token, as a template that makes one string of a conversation has it;
//! a token that reaches over the border of what is learned is learned. The parts of a message are encoded apart.

use std::ops::Range;
use std::sync::Arc;

use super::template::{ChatTemplate, PartPieces, Piece, ROLES, TurnPieces, id_of};
use super::{DEFAULT_CACHE_BYTES, DocumentError, EncodeError, Encoder, Tokenizer};
use crate::conversation::{Field, Fields};
use crate::error::{Error, Result};
use crate::ragged::{DocumentBatch, NOT_LEARNED, TokenBatch};

/// A template and the ids of its special tokens. A clone shares all of it.
#[derive(Clone, Debug)]
pub struct Renderer {
    tokenizer: Tokenizer,
    rules: Arc<Rules>,
    learns_all: bool,
}

#[derive(Debug)]
struct Rules {
    template: ChatTemplate,
    bos: Vec<Piece>,
    turns: Vec<TurnPieces>,
    python: Option<PartPieces>,
    python_output: Option<PartPieces>,
    pad_id: u32,
}

impl Renderer {
    /// The template with a vocabulary.
    ///
    /// # Errors
    /// When the vocabulary lacks special tokens of the template, or the template contradicts itself.
    pub fn new(template: ChatTemplate, tokenizer: Tokenizer) -> Result<Self> {
        template.check(&tokenizer)?;
        let pieces = |text: &str| template.pieces(&tokenizer, text);
        let turns = ROLES.into_iter().filter_map(|role| {
            template.turns.get(role).map(|turn| TurnPieces {
                role,
                start: pieces(&turn.start),
                end: pieces(&turn.end),
                after: pieces(&turn.after),
                learned: template.learned_roles.iter().any(|learned| learned == role),
            })
        });
        let part = |field: Field| {
            template.parts.get(field.name()).map(|part| PartPieces {
                start: pieces(&part.start),
                end: pieces(&part.end),
                learned: part.learned,
            })
        };
        let rules = Rules {
            bos: pieces(&template.bos),
            turns: turns.collect(),
            python: part(Field::Python),
            python_output: part(Field::PythonOutput),
            pad_id: id_of(&tokenizer, &template.pad)
                .ok_or_else(|| Error::config("template", &template.name, "its pad has no id"))?,
            template,
        };
        Ok(Self { tokenizer, rules: Arc::new(rules), learns_all: false })
    }

    /// With every token learned, whoever speaks.
    #[must_use]
    pub fn learning_all(self) -> Self {
        Self { learns_all: true, ..self }
    }

    /// The token that fills rows.
    pub fn pad_id(&self) -> u32 {
        self.rules.pad_id
    }

    /// Whether conversations begin with a BOS.
    pub fn has_bos(&self) -> bool {
        !self.rules.bos.is_empty()
    }

    /// The template.
    pub fn template(&self) -> &ChatTemplate {
        &self.rules.template
    }

    /// The vocabulary.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// An encoder: one per thread.
    pub fn encoder(&self) -> ChatEncoder {
        self.with(self.tokenizer.take_encoder(DEFAULT_CACHE_BYTES))
    }

    /// The same around an encoder of the vocabulary.
    pub(super) fn with(&self, encoder: Encoder) -> ChatEncoder {
        ChatEncoder { renderer: self.clone(), encoder, scratch: Scratch::default() }
    }

    /// The ids of one conversation with an encoder of the same vocabulary; tokens that are not learned carry
    /// `NOT_LEARNED`. With `prompts`, what stands in front of an assistant's answer follows.
    ///
    /// # Errors
    /// When it cannot be rendered.
    pub fn render(
        &self,
        encoder: &mut Encoder,
        conversation: &[u8],
        prompts: bool,
    ) -> std::result::Result<Vec<u32>, EncodeError> {
        let (documents, mut out) = (DocumentBatch::from_texts([conversation]), TokenBatch::new());
        self.encode(encoder, &mut Scratch::default(), &documents, prompts, &mut out)
            .map_err(|failed| failed.error)?;
        Ok(out.into_parts().0)
    }

    fn encode(
        &self,
        encoder: &mut Encoder,
        Scratch { sheet, encoded }: &mut Scratch,
        documents: &DocumentBatch,
        prompts: bool,
        out: &mut TokenBatch,
    ) -> std::result::Result<(), DocumentError> {
        sheet.clear();
        let mut result = Ok(());
        for (document, bytes) in documents.iter().enumerate() {
            let begun = sheet.mark();
            if let Err(error) = self.rules.write(document, bytes, prompts, sheet) {
                sheet.return_to(begun);
                result = Err(DocumentError { document, error });
                break;
            }
            sheet.steps.push(Step::End);
        }
        encoded.clear();
        let text_of = |index| sheet.text(index, documents);
        if let Err(failed) = encoder.encode_texts(sheet.segments.len(), text_of, encoded) {
            let segment = &sheet.segments[failed.document];
            let error = in_message(failed.error, segment.message);
            result = Err(DocumentError { document: segment.document, error });
        }
        let num_documents = result.as_ref().map_or_else(|failed| failed.document, |()| documents.len());
        sheet.weave(encoded, num_documents, self, out);
        result
    }
}

/// Buffers that are used again.
#[derive(Debug, Default)]
struct Scratch {
    sheet: Sheet,
    encoded: TokenBatch,
}

/// Renders conversations of one template, many at once.
#[derive(Debug)]
pub struct ChatEncoder {
    renderer: Renderer,
    encoder: Encoder,
    scratch: Scratch,
}

impl ChatEncoder {
    /// What encodes the texts.
    pub fn inner(&mut self) -> &mut Encoder {
        &mut self.encoder
    }

    /// What encoded the texts.
    pub fn into_inner(self) -> Encoder {
        self.encoder
    }

    /// Appends each conversation of `documents` to `out`; tokens that are not learned carry `NOT_LEARNED`.
    ///
    /// # Errors
    /// The first conversation that cannot be rendered; `out` then holds those before it.
    pub fn encode_batch(
        &mut self,
        documents: &DocumentBatch,
        out: &mut TokenBatch,
    ) -> std::result::Result<(), DocumentError> {
        self.renderer.encode(&mut self.encoder, &mut self.scratch, documents, false, out)
    }
}

fn in_message(error: EncodeError, message: Option<usize>) -> EncodeError {
    let reason = match error {
        EncodeError::InvalidUtf8 { byte } => {
            format!("invalid UTF-8 at byte {byte}; re-encode the file, or leave the conversation out")
        }
        other => other.to_string(),
    };
    EncodeError::Conversation { message, reason }
}

/// What a batch of conversations will be made of, in order.
#[derive(Debug, Default)]
struct Sheet {
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

/// A text that is encoded in one piece.
#[derive(Clone, Debug)]
struct Segment {
    document: usize,
    /// The message it belongs to, for errors.
    message: Option<usize>,
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
type Mark = (usize, usize, usize, usize);

impl Sheet {
    fn clear(&mut self) {
        self.return_to((0, 0, 0, 0));
    }

    fn mark(&self) -> Mark {
        (self.steps.len(), self.segments.len(), self.joined.len(), self.marks.len())
    }

    fn return_to(&mut self, (steps, segments, joined, marks): Mark) {
        self.steps.truncate(steps);
        self.segments.truncate(segments);
        self.joined.truncate(joined);
        self.marks.truncate(marks);
        self.open = None;
    }

    fn text<'a>(&'a self, index: usize, documents: &'a DocumentBatch) -> &'a [u8] {
        let segment = &self.segments[index];
        match &segment.text {
            Text::Said(range) => &documents.document(segment.document)[range.clone()],
            Text::Joined(range) => &self.joined[range.clone()],
        }
    }

    /// The ids of the first `num_documents` conversations, from those of their texts.
    fn weave(&self, encoded: &TokenBatch, num_documents: usize, renderer: &Renderer, out: &mut TokenBatch) {
        let bit = |learned: bool| if learned || renderer.learns_all { 0 } else { NOT_LEARNED };
        let (mut documents, mut index) = (0, 0);
        for step in &self.steps {
            if documents == num_documents {
                return;
            }
            let values = out.values_mut();
            match *step {
                Step::Special { id, learned } => values.push(id | bit(learned)),
                Step::Segment => {
                    let tokens = encoded.document(index);
                    match &self.segments[index].learned {
                        Learned::Whole(learned) => {
                            let bit = bit(*learned);
                            values.extend(tokens.iter().map(|token| token | bit));
                        }
                        Learned::Marked(marks) => {
                            let Text::Joined(text) = &self.segments[index].text else { continue };
                            let ends = self.marks[marks.clone()].iter();
                            let ends = ends.map(|&(end, learned)| (end - text.start, learned)).collect();
                            let learned = Overlaps { ends, position: 0, at: 0 };
                            weave_marked(tokens, learned, renderer, values);
                        }
                    }
                    index += 1;
                }
                Step::End => {
                    out.end_document();
                    documents += 1;
                }
            }
        }
    }

    /// Adds bytes of the conversation to the text at hand.
    fn say(&mut self, conversation: &[u8], range: Range<usize>, learned: bool) {
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
    fn recite(
        &mut self,
        pieces: &[Piece],
        learned: bool,
        conversation: &[u8],
        place: (usize, Option<usize>),
    ) {
        for piece in pieces {
            match piece {
                Piece::Special(id) => {
                    self.close(place);
                    self.steps.push(Step::Special { id: *id, learned });
                }
                Piece::Text(text) => {
                    self.join(conversation);
                    self.joined.extend_from_slice(text.as_bytes());
                    self.marks.push((self.joined.len(), learned));
                }
            }
        }
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
    fn close(&mut self, (document, message): (usize, Option<usize>)) {
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
        self.segments.push(Segment { document, message, text, learned });
        self.steps.push(Step::Segment);
    }
}

/// Whether stretches of a text, taken one after the other, reach into what is learned.
struct Overlaps {
    ends: Vec<(usize, bool)>,
    position: usize,
    /// The first of `ends` that lies behind `position`.
    at: usize,
}

impl Overlaps {
    fn next(&mut self, length: usize) -> bool {
        let end = self.position + length;
        let mut learned = false;
        while let Some(&(mark, is_learned)) = self.ends.get(self.at) {
            learned |= is_learned;
            if mark > end {
                break;
            }
            self.at += 1;
            if mark == end {
                break;
            }
        }
        self.position = end;
        learned
    }
}

fn weave_marked(tokens: &[u32], mut learned: Overlaps, renderer: &Renderer, values: &mut Vec<u32>) {
    for &token in tokens {
        let length = renderer.tokenizer.token_bytes(token).map_or(0, <[u8]>::len);
        let bit = if learned.next(length) || renderer.learns_all { 0 } else { NOT_LEARNED };
        values.push(token | bit);
    }
}

/// What the conversation at hand has come to.
struct Place {
    document: usize,
    message: Option<usize>,
}

impl Place {
    fn refuse(&self, reason: impl Into<String>) -> EncodeError {
        EncodeError::Conversation { message: self.message, reason: reason.into() }
    }

    fn pair(&self) -> (usize, Option<usize>) {
        (self.document, self.message)
    }
}

/// A message that has begun.
struct Message<'a> {
    turn: &'a TurnPieces,
    learned: bool,
    has_parts: bool,
}

impl Rules {
    /// Writes what `conversation` is made of to the sheet.
    fn write(
        &self,
        document: usize,
        conversation: &[u8],
        prompts: bool,
        sheet: &mut Sheet,
    ) -> std::result::Result<(), EncodeError> {
        let mut place = Place { document, message: None };
        let mut fields = Fields::new(conversation).peekable();
        sheet.recite(&self.bos, false, conversation, place.pair());
        let Some((first, range)) = fields.peek() else {
            return Err(place.refuse("it has no messages"));
        };
        if *first == Field::Document {
            if let Some(Step::Special { learned, .. }) = sheet.steps.last_mut() {
                *learned |= !self.bos.is_empty(); // a text is learned whole
            }
            sheet.say(conversation, range.clone(), true);
            sheet.close(place.pair());
            return Ok(());
        }
        let last_learned = self.last_learned(conversation);
        // A system message that is yet to be merged into the first user's.
        let mut system: Vec<Range<usize>> = Vec::new();
        let (mut message, mut num_turns): (Option<Message<'_>>, usize) = (None, 0);
        while let Some((field, range)) = fields.next() {
            let bytes = &conversation[range.clone()];
            match field {
                Field::Role => {
                    self.end(message.take(), conversation, &place, sheet);
                    let index = place.message.map_or(0, |message| message + 1);
                    place.message = Some(index);
                    if let Some((_, reason)) = fields.next_if(|(field, _)| *field == Field::Broken) {
                        return Err(place.refuse(String::from_utf8_lossy(&conversation[reason])));
                    }
                    let role = self.role_of(bytes, index, num_turns, &place)?;
                    num_turns += usize::from(role != "system");
                    let Some(turn) = self.turns.iter().find(|turn| turn.role == role) else {
                        continue; // merged into what follows
                    };
                    sheet.recite(&turn.start, false, conversation, place.pair());
                    let learned =
                        turn.learned && (!self.template.only_last_turn || last_learned == Some(index));
                    if role == "user" && !system.is_empty() {
                        for range in system.drain(..) {
                            sheet.say(conversation, range, learned);
                        }
                        sheet.join(conversation);
                        sheet.joined.extend_from_slice(b"\n\n");
                        sheet.marks.push((sheet.joined.len(), learned));
                    }
                    message = Some(Message { turn, learned, has_parts: false });
                }
                Field::Broken => return Err(place.refuse(String::from_utf8_lossy(bytes))),
                Field::Document => return Err(place.refuse("a text within a conversation")),
                Field::UnknownPart => {
                    let name = String::from_utf8_lossy(bytes);
                    return Err(place.refuse(format!(
                        "a part of type `{name}`; expected `text`, `python` or `python_output`"
                    )));
                }
                Field::Text | Field::Python | Field::PythonOutput => match &mut message {
                    Some(message) => self.part(field, range, message, conversation, &place, sheet)?,
                    None if field == Field::Text => system.push(self.trimmed(conversation, range)),
                    None => return Err(place.refuse(only_text("system", field))),
                },
            }
        }
        if num_turns == 0 {
            return Err(place.refuse(match place.message {
                None => "it has no messages",
                Some(_) => "a system message alone; expected a message of the role `user` behind it",
            }));
        }
        self.end(message, conversation, &place, sheet);
        if prompts {
            let assistant = self.turns.iter().find(|turn| turn.role == "assistant");
            let start = assistant.map_or(&[][..], |turn| &turn.start);
            sheet.recite(start, false, conversation, place.pair());
        }
        sheet.close(place.pair());
        Ok(())
    }

    /// The last message of a role that is learned.
    fn last_learned(&self, conversation: &[u8]) -> Option<usize> {
        if !self.template.only_last_turn {
            return None;
        }
        let roles = Fields::new(conversation).filter(|(field, _)| *field == Field::Role);
        let learned = roles.enumerate().filter(|(_, (_, range))| {
            let role = &conversation[range.clone()];
            self.turns.iter().any(|turn| turn.learned && turn.role.as_bytes() == role)
        });
        learned.last().map(|(index, _)| index)
    }

    fn role_of(
        &self,
        role: &[u8],
        index: usize,
        num_turns: usize,
        place: &Place,
    ) -> std::result::Result<&'static str, EncodeError> {
        let expected = ROLES[num_turns % 2];
        if role == expected.as_bytes() {
            return Ok(expected);
        }
        if index == 0 && role == b"system" {
            return Ok("system");
        }
        Err(place.refuse(format!(
            "role `{}`; expected `{expected}`: the user begins, behind a system message or none, and roles alternate",
            String::from_utf8_lossy(role).escape_debug()
        )))
    }

    fn part(
        &self,
        field: Field,
        range: Range<usize>,
        message: &mut Message<'_>,
        conversation: &[u8],
        place: &Place,
        sheet: &mut Sheet,
    ) -> std::result::Result<(), EncodeError> {
        if std::mem::replace(&mut message.has_parts, true) {
            sheet.close(place.pair());
        }
        let around = match field {
            Field::Python => &self.python,
            Field::PythonOutput => &self.python_output,
            _ => {
                sheet.say(conversation, self.trimmed(conversation, range), message.learned);
                return Ok(());
            }
        };
        if message.turn.role != "assistant" {
            return Err(place.refuse(only_text(message.turn.role, field)));
        }
        let Some(around) = around else {
            let (name, part) = (&self.template.name, field.name());
            return Err(place.refuse(format!("a part of type `{part}`, which the template `{name}` lacks")));
        };
        let learned = message.learned && around.learned;
        sheet.recite(&around.start, learned, conversation, place.pair());
        sheet.say(conversation, range, learned);
        sheet.recite(&around.end, learned, conversation, place.pair());
        Ok(())
    }

    fn end(&self, message: Option<Message<'_>>, conversation: &[u8], place: &Place, sheet: &mut Sheet) {
        let Some(message) = message else { return };
        sheet.recite(&message.turn.end, message.learned, conversation, place.pair());
        sheet.recite(&message.turn.after, false, conversation, place.pair());
    }

    /// `range` without the white space around it, where the template wants that: what Python's `strip` takes off.
    fn trimmed(&self, conversation: &[u8], range: Range<usize>) -> Range<usize> {
        let text = match self.template.trim {
            true => str::from_utf8(&conversation[range.clone()]).ok(),
            false => None,
        };
        let Some(text) = text else { return range };
        let is_space = |character: char| character.is_whitespace() || ('\x1c'..='\x1f').contains(&character);
        let start = range.start + text.len() - text.trim_start_matches(is_space).len();
        start..start + text.trim_matches(is_space).len()
    }
}

fn only_text(role: &str, field: Field) -> String {
    format!(
        "a part of type `{}` in a message of the role `{role}`; only an assistant's has them",
        field.name()
    )
}
