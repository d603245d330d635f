//! What of a document that is longer than a row is used.

/// Which side of a document is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// What lies beyond the row's end.
    #[default]
    End,
    /// What lies in front of the last tokens that fit; the first token stays where it is a BOS.
    Left {
        /// Whether documents bring a BOS.
        keeps_first: bool,
    },
}

impl Cut {
    /// The part of `tokens` that a row takes which has room for `space`: its front and its back.
    pub fn kept(self, tokens: &[u32], space: usize) -> (&[u32], &[u32]) {
        match self {
            _ if tokens.len() <= space => (tokens, &[]),
            Self::End => (&tokens[..space], &[]),
            Self::Left { keeps_first } => {
                let front = usize::from(keeps_first).min(space);
                (&tokens[..front], &tokens[tokens.len() - (space - front)..])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_keeps_as_many_tokens_as_there_is_room_for() {
        let tokens = [1, 2, 3, 4, 5];
        for (cut, space, expected) in [
            (Cut::End, 3, vec![1, 2, 3]),
            (Cut::End, 9, vec![1, 2, 3, 4, 5]),
            (Cut::Left { keeps_first: true }, 3, vec![1, 4, 5]),
            (Cut::Left { keeps_first: false }, 3, vec![3, 4, 5]),
            (Cut::Left { keeps_first: true }, 1, vec![1]),
            (Cut::Left { keeps_first: true }, 5, vec![1, 2, 3, 4, 5]),
        ] {
            let (front, back) = cut.kept(&tokens, space);
            assert_eq!([front, back].concat(), expected, "{cut:?} to {space}");
        }
    }
}
