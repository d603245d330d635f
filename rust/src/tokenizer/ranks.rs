//! Whether merging by rank gives what a list of merges gives, so that a file of ranks can stand for it.
//!
//! It does where (1) the listed merges are in the order of what they give, (2) a merge's parts are bytes or come before what
//! they give, and (3) the list makes every token's bytes, taken alone, into that token. Then merging goes through the tokens
//! in the order of their ids either way. Say both ways agree up to token t. An occurrence of t whose borders no merge has
//! crossed looks as t's bytes alone look at that moment, which by (3) is the one pair that the list merges into t; so no other
//! pair gives t, then or later, and both ways agree on t as well. What the trainers in use write is of this kind.

use super::Tokenizer;
use super::bpe::heap::HeapMerger;
use super::definition::Merges;
use super::vocab::shown;

impl Tokenizer {
    /// Why merging by rank would give other ids; nothing where it gives the same.
    pub(super) fn differs_by_rank(&self) -> Result<(), String> {
        let definition = &self.tables.definition;
        let (vocabulary, pairs) = (&definition.vocabulary, &self.tables.pairs);
        let Merges::List(list) = &definition.merges else { return Ok(()) };
        let mut before = 0;
        for (index, &(left, right)) in list.iter().enumerate() {
            let merged = pairs.get(left, right).map_or(0, |merge| merge.id);
            let is_earlier = |part: u32| part < merged || vocabulary.token(part).len() == 1;
            if merged < before || !is_earlier(left) || !is_earlier(right) {
                let token = shown(vocabulary.token(merged));
                return Err(format!(
                    "merge {index}, which gives {token} (id {merged}), is not in the order of ids"
                ));
            }
            before = merged;
        }
        let (mut heap, mut ids) = (HeapMerger::default(), Vec::new());
        for (id, token) in vocabulary.iter().filter(|(_, token)| token.len() > 1) {
            ids.clear();
            heap.merge(pairs, token, &mut ids);
            if ids != [id] && vocabulary.unreachable().binary_search(&id).is_err() {
                return Err(format!("its merges do not make token {} (id {id})", shown(token)));
            }
        }
        Ok(())
    }
}
