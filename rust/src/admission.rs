//! Which documents a lane passes over before its packer sees them: conversations that no row could use.

use crate::packing::{Cut, Document, NOT_LEARNED};

/// The rule of a loader of conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    /// T + 1.
    pub(crate) row_length: usize,
    /// What of a longer document is used.
    pub(crate) cut: Cut,
    /// Whether longer documents are passed over instead.
    pub(crate) leaves_out_long: bool,
}

/// Why a document is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PassedOver {
    /// It is longer than a row.
    TooLong,
    /// Nothing of it that a row takes is learned.
    Unlearned,
}

impl PassedOver {
    /// In words.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "longer than a row",
            Self::Unlearned => "no learned token in what a row takes of it",
        }
    }
}

impl Admission {
    /// Why `document` is passed over, if it is. A row's first token is no target.
    pub(crate) fn passes_over(&self, document: &Document) -> Option<PassedOver> {
        let tokens = document.tokens();
        if self.leaves_out_long && tokens.len() > self.row_length {
            return Some(PassedOver::TooLong);
        }
        let (front, back) = self.cut.kept(tokens, self.row_length);
        let is_learned = |token: &u32| token & NOT_LEARNED == 0;
        let learned = front.iter().skip(1).chain(back).any(is_learned);
        (!learned).then_some(PassedOver::Unlearned)
    }
}
