//! One conversation's fields → the sheet, by a template's rules; what is no conversation is refused in words.
//!
//! ```text
//! Role system, Text s, Role user, Text u, Role assistant, Text a
//! <|bos|> <|user_start|> s \n\n u <|user_end|> <|assistant_start|> a <|assistant_end|>      (no turn for `system`)
//! ```

use std::ops::Range;

use super::rules::Rules;
use super::sheet::{Place, Sheet};
use super::template::{ASSISTANT, ROLES, SYSTEM, TurnPieces, USER};
use crate::conversation::{Field, Fields};
use crate::tokenizer::EncodeError;

type Result<T> = std::result::Result<T, EncodeError>;

/// Writes one conversation to the sheet.
pub(super) struct Scribe<'a> {
    rules: &'a Rules,
    conversation: &'a [u8],
    sheet: &'a mut Sheet,
    place: Place,
    message: Option<Message<'a>>,
    /// Messages that are no system message.
    num_turns: usize,
    /// A system message that is yet to be merged into the first user's.
    system: Vec<Range<usize>>,
}

/// A message that has begun and has a turn of its own.
struct Message<'a> {
    turn: &'a TurnPieces,
    learned: bool,
    has_parts: bool,
}

impl<'a> Scribe<'a> {
    /// For the `document`-th conversation of a batch.
    pub(super) fn new(
        rules: &'a Rules,
        document: usize,
        conversation: &'a [u8],
        sheet: &'a mut Sheet,
    ) -> Self {
        let place = Place { document, message: None };
        Self { rules, conversation, sheet, place, message: None, num_turns: 0, system: Vec::new() }
    }

    /// Writes it; with `prompts`, what stands in front of an assistant's answer follows.
    pub(super) fn write(mut self, prompts: bool) -> Result<()> {
        let mut fields = Fields::new(self.conversation);
        self.sheet.recite(&self.rules.bos, false, self.conversation, self.place);
        if let Some(range) = fields.next_if(Field::Document) {
            self.document(range);
            return Ok(());
        }
        let last_learned = self.last_learned();
        while let Some((field, range)) = fields.next() {
            match field {
                Field::Role => {
                    self.end_message();
                    self.place.message = Some(self.place.message.map_or(0, |message| message + 1));
                    if let Some(reason) = fields.next_if(Field::Broken) {
                        return Err(self.refuse(self.said(reason)));
                    }
                    self.begin_message(range, last_learned)?;
                }
                Field::Text | Field::Python | Field::PythonOutput => self.part(field, range)?,
                Field::Broken => return Err(self.refuse(self.said(range))),
                Field::Document => return Err(self.refuse("a text within a conversation")),
                Field::UnknownPart => {
                    let name = self.said(range);
                    return Err(self.refuse(format!(
                        "a part of type `{name}`; expected `text`, `python` or `python_output`"
                    )));
                }
            }
        }
        if self.num_turns == 0 {
            return Err(self.refuse(match self.place.message {
                None => "it has no messages",
                Some(_) => "a system message alone; expected a message of the role `user` behind it",
            }));
        }
        self.end_message();
        if let Some(turn) = self.rules.turn(ASSISTANT).filter(|_| prompts) {
            self.sheet.recite(&turn.start, false, self.conversation, self.place);
        }
        self.sheet.close(self.place);
        Ok(())
    }

    /// A text that joins conversations is learned whole, BOS included.
    fn document(&mut self, range: Range<usize>) {
        if !self.rules.bos.is_empty() {
            self.sheet.learn_last();
        }
        self.sheet.say(self.conversation, range, true);
        self.sheet.close(self.place);
    }

    fn begin_message(&mut self, role: Range<usize>, last_learned: Option<usize>) -> Result<()> {
        let role = self.role_of(&self.conversation[role])?;
        self.num_turns += usize::from(role != SYSTEM);
        let Some(turn) = self.rules.turn(role) else { return Ok(()) };
        let learned =
            turn.learned && (!self.rules.template.only_last_turn || last_learned == self.place.message);
        self.sheet.recite(&turn.start, false, self.conversation, self.place);
        if role == USER && !self.system.is_empty() {
            for range in std::mem::take(&mut self.system) {
                self.sheet.say(self.conversation, range, learned);
            }
            self.sheet.add_words("\n\n", self.conversation, learned);
        }
        self.message = Some(Message { turn, learned, has_parts: false });
        Ok(())
    }

    fn end_message(&mut self) {
        if let Some(Message { turn, learned, .. }) = self.message.take() {
            self.sheet.recite(&turn.end, learned, self.conversation, self.place);
            self.sheet.recite(&turn.after, false, self.conversation, self.place);
        }
    }

    fn part(&mut self, field: Field, range: Range<usize>) -> Result<()> {
        let Some(message) = &mut self.message else {
            if field != Field::Text {
                return Err(self.refuse(only_text("system", field)));
            }
            self.system.push(self.trimmed(range));
            return Ok(());
        };
        let (role, learned) = (message.turn.role, message.learned);
        if std::mem::replace(&mut message.has_parts, true) {
            self.sheet.close(self.place);
        }
        if field == Field::Text {
            self.sheet.say(self.conversation, self.trimmed(range), learned);
            return Ok(());
        }
        if role != "assistant" {
            return Err(self.refuse(only_text(role, field)));
        }
        let Some(around) = self.rules.part(field) else {
            let (name, part) = (&self.rules.template.name, field.name());
            return Err(self.refuse(format!("a part of type `{part}`, which the template `{name}` lacks")));
        };
        let learned = learned && around.learned;
        self.sheet.recite(&around.start, learned, self.conversation, self.place);
        self.sheet.say(self.conversation, range, learned);
        self.sheet.recite(&around.end, learned, self.conversation, self.place);
        Ok(())
    }

    /// The last message of a role that is learned, where it alone is.
    fn last_learned(&self) -> Option<usize> {
        if !self.rules.template.only_last_turn {
            return None;
        }
        let roles = Fields::new(self.conversation).filter(|(field, _)| *field == Field::Role);
        let learned = roles.enumerate().filter(|(_, (_, range))| {
            let is_role = |role: &&str| role.as_bytes() == &self.conversation[range.clone()];
            let role = ROLES.iter().position(is_role);
            role.and_then(|role| self.rules.turn(role)).is_some_and(|turn| turn.learned)
        });
        learned.last().map(|(index, _)| index)
    }

    /// Which of `ROLES`.
    fn role_of(&self, role: &[u8]) -> Result<usize> {
        let is_user = self.num_turns.is_multiple_of(2);
        let expected = if is_user { USER } else { ASSISTANT };
        // Constants are compared in registers.
        let is_expected = if is_user { role == b"user" } else { role == b"assistant" };
        if is_expected {
            return Ok(expected);
        }
        if self.place.message == Some(0) && role == b"system" {
            return Ok(SYSTEM);
        }
        let expected = ROLES[expected];
        Err(self.refuse(format!(
            "role `{}`; expected `{expected}`: the user begins, behind a system message or none, and roles alternate",
            String::from_utf8_lossy(role).escape_debug()
        )))
    }

    /// `range` without the white space around it, where the template wants that: what Python's `strip` takes off.
    fn trimmed(&self, range: Range<usize>) -> Range<usize> {
        let text = match self.rules.template.trim {
            true => str::from_utf8(&self.conversation[range.clone()]).ok(),
            false => None,
        };
        let Some(text) = text else { return range };
        let is_space = |character: char| character.is_whitespace() || ('\x1c'..='\x1f').contains(&character);
        let start = range.start + text.len() - text.trim_start_matches(is_space).len();
        start..start + text.trim_matches(is_space).len()
    }

    fn said(&self, range: Range<usize>) -> String {
        String::from_utf8_lossy(&self.conversation[range]).into_owned()
    }

    fn refuse(&self, reason: impl Into<String>) -> EncodeError {
        EncodeError::Conversation { message: self.place.message, reason: reason.into() }
    }
}

fn only_text(role: &str, field: Field) -> String {
    format!(
        "a part of type `{}` in a message of the role `{role}`; only an assistant's has them",
        field.name()
    )
}
