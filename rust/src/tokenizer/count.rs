//! How many ids a text has, without a list of them: ids of one chunk of pretokens at a time are made, counted and dropped.

use super::encode_error::EncodeError;
use super::encoder::{Encoder, Splitter};
use super::rewrite::{Part, Rewriter};

impl Encoder {
    /// The number of ids that [`encode_str`](Self::encode_str) gives, or [`encode_with`](Self::encode_with) with a rewriter.
    ///
    /// # Errors
    /// When the split pattern fails on the text.
    pub fn count(&mut self, rewriter: Option<&Rewriter>, text: &str) -> Result<usize, EncodeError> {
        let tables = self.tables();
        let rewriter = rewriter.or_else(|| tables.rewriter.as_ref().filter(|it| !it.keeps(text)));
        let Some(rewriter) = rewriter else { return self.count_plain(text) };
        let mut count = 0;
        for part in rewriter.parts(text) {
            count += match part {
                Part::Special(_) => 1,
                Part::Text(text) => self.count_plain(&text)?,
            };
        }
        Ok(count)
    }

    fn count_plain(&mut self, text: &str) -> Result<usize, EncodeError> {
        let (mut count, mut ids) = (0, Vec::new());
        let mut counted = |ids: &mut Vec<u32>| {
            count += ids.len();
            ids.clear();
        };
        let Splitter::Family(splitter) = *self.splitter() else {
            self.encode_by_regex(text, &mut ids, counted)?;
            return Ok(count);
        };
        let mut at = 0;
        while at < text.len() {
            match self.push_segment(splitter, 0, text, text.as_bytes(), at) {
                Some(next) => at = next,
                None => {
                    self.finish(&|_| text.as_bytes(), &mut ids, &mut |_| {});
                    counted(&mut ids);
                }
            }
        }
        self.finish(&|_| text.as_bytes(), &mut ids, &mut |_| {});
        counted(&mut ids);
        Ok(count)
    }
}
