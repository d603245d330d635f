//! What a template says of conversations, with the ids of its special tokens.

use super::template::{ChatTemplate, PartPieces, Piece, ROLES, TurnPieces, id_of};
use crate::conversation::Field;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// A template with a vocabulary.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) template: ChatTemplate,
    pub(super) bos: Vec<Piece>,
    pub(super) pad_id: u32,
    /// In the order of `ROLES`.
    turns: [Option<TurnPieces>; ROLES.len()],
    python: Option<PartPieces>,
    python_output: Option<PartPieces>,
}

impl Rules {
    /// Refuses a template that contradicts itself, or has special tokens that the vocabulary lacks.
    pub(super) fn new(template: ChatTemplate, tokenizer: &Tokenizer) -> Result<Self> {
        template.check(tokenizer)?;
        let pieces = |text: &str| template.pieces(tokenizer, text);
        let turns = ROLES.map(|role| {
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
        Ok(Self {
            bos: pieces(&template.bos),
            turns,
            python: part(Field::Python),
            python_output: part(Field::PythonOutput),
            pad_id: id_of(tokenizer, &template.pad)
                .ok_or_else(|| Error::config("template", &template.name, "its pad has no id"))?,
            template,
        })
    }

    /// What stands around messages of `ROLES[role]`; none: they are merged into what follows.
    pub(super) fn turn(&self, role: usize) -> Option<&TurnPieces> {
        self.turns[role].as_ref()
    }

    /// What stands around a part that is no text; none where the template lacks it.
    pub(super) fn part(&self, field: Field) -> Option<&PartPieces> {
        match field {
            Field::Python => self.python.as_ref(),
            Field::PythonOutput => self.python_output.as_ref(),
            _ => None,
        }
    }
}
