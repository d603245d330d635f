//! Splitting by regular expression: the reference for patterns with a splitter of their own, and the way for all others.

use std::ops::Range;

use fancy_regex::{Regex, RegexBuilder};

use crate::error::{Error, Result};
use crate::tokenizer::pattern::Pattern;

/// Steps back in one search before a text is refused. The patterns in use take about one for each character of a run of
/// spaces; the engine's own limit of a million refuses a megabyte of them.
const MAX_BACKTRACKS: usize = 1 << 30;

/// Compiled expressions and the buffers between them. One per thread: matching shares scratch memory inside a `Regex`.
#[derive(Clone, Debug)]
pub struct RegexSplitter {
    stages: Vec<(Regex, bool)>,
    pieces: Vec<Range<usize>>,
    finer: Vec<Range<usize>>,
}

impl RegexSplitter {
    /// Compiles `pattern`; messages call its vocabulary `name`.
    ///
    /// # Errors
    /// When an expression does not compile.
    pub fn new(name: &str, pattern: &Pattern) -> Result<Self> {
        let stages = pattern.stages.iter().map(|stage| {
            let mut builder = RegexBuilder::new(&stage.regex);
            builder.oniguruma_mode(stage.oniguruma).multi_line(stage.oniguruma);
            match builder.backtrack_limit(MAX_BACKTRACKS).build() {
                Ok(regex) => Ok((regex, stage.keep_gaps)),
                Err(error) => {
                    let reason = format!("bad split pattern `{}`: {error}", stage.regex);
                    Err(Error::Vocabulary { name: name.into(), reason })
                }
            }
        });
        Ok(Self { stages: stages.collect::<Result<_>>()?, pieces: Vec::new(), finer: Vec::new() })
    }

    /// The pretokens of `text`, in order, as byte ranges.
    ///
    /// # Errors
    /// What the expression engine says when it gives up on a text.
    pub fn split(&mut self, text: &str) -> std::result::Result<&[Range<usize>], String> {
        self.pieces.clear();
        if !text.is_empty() {
            self.pieces.push(0..text.len());
        }
        for (regex, keep_gaps) in &self.stages {
            self.finer.clear();
            for piece in &self.pieces {
                cut(regex, *keep_gaps, text, piece.clone(), &mut self.finer)?;
            }
            std::mem::swap(&mut self.pieces, &mut self.finer);
        }
        Ok(&self.pieces)
    }

    /// What the last `split` gave.
    pub fn pieces(&self) -> &[Range<usize>] {
        &self.pieces
    }
}

/// Adds the matches in `text[piece]`, and what lies between them where `keep_gaps`.
fn cut(
    regex: &Regex,
    keep_gaps: bool,
    text: &str,
    piece: Range<usize>,
    out: &mut Vec<Range<usize>>,
) -> std::result::Result<(), String> {
    let mut done = piece.start;
    for found in regex.find_iter(&text[piece.clone()]) {
        let found = found.map_err(|error| format!("the split pattern `{regex}` gave up: {error}"))?;
        let (start, end) = (piece.start + found.start(), piece.start + found.end());
        if keep_gaps && done < start {
            out.push(done..start);
        }
        if start < end {
            out.push(start..end);
        }
        done = end;
    }
    if keep_gaps && done < piece.end {
        out.push(done..piece.end);
    }
    Ok(())
}
