//! Which source a lane admits its next document from.
//!
//! ```text
//! weights   web 0.7   code 0.3
//! admitted  web 700   code 310        700 / 0.7 < 310 / 0.3: web is next
//! ```
//! The next document comes from the source with the smallest (tokens admitted, BOS included) ÷ weight, the first listed
//! among equals. So at every admission each source is within one document per other source of its share. Counters begin
//! anew when weights change or a source drops out. The rule knows no documents: the choice is made before one is read.

/// Weights, and what was admitted since they were last changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    sources: Vec<Source>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Source {
    weight: f64,
    admitted: u64,
    has_run_out: bool,
}

impl Mixture {
    /// Sources with these weights (finite, above 0), tokens admitted so far, and whether they have dropped out.
    pub fn new(sources: impl IntoIterator<Item = (f64, u64, bool)>) -> Self {
        let source = |(weight, admitted, has_run_out)| Source { weight, admitted, has_run_out };
        Self { sources: sources.into_iter().map(source).collect() }
    }

    /// The source whose turn it is; none when all have dropped out.
    pub fn next(&self) -> Option<usize> {
        let left = self.sources.iter().enumerate().filter(|(_, source)| !source.has_run_out);
        let key = |source: &Source| source.admitted as f64 / source.weight;
        left.min_by(|(_, one), (_, other)| key(one).total_cmp(&key(other))).map(|(index, _)| index)
    }

    /// Counts a document of a source: its tokens with BOS.
    pub fn admit(&mut self, source: usize, num_tokens: u64) {
        self.sources[source].admitted += num_tokens;
    }

    /// A source has run out: the others share what is to come by their weights.
    pub fn drop_out(&mut self, source: usize) {
        self.sources[source].has_run_out = true;
        self.sources.iter_mut().for_each(|source| source.admitted = 0);
    }

    /// Tokens admitted from a source since counters began anew, and whether it has dropped out.
    pub fn source(&self, index: usize) -> (u64, bool) {
        (self.sources[index].admitted, self.sources[index].has_run_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_source_stays_within_one_document_per_other_source_of_its_share(
            weights in prop::collection::vec(0.01f64..10.0, 1..5),
            lengths in prop::collection::vec(1u64..1000, 1..200),
        ) {
            let mut mixture = Mixture::new(weights.iter().map(|&weight| (weight, 0, false)));
            let whole: f64 = weights.iter().sum();
            let (mut total, mut longest) = (0, 0);
            for length in lengths {
                let source = mixture.next().unwrap();
                mixture.admit(source, length);
                (total, longest) = (total + length, longest.max(length));
                for (index, weight) in weights.iter().enumerate() {
                    let due = total as f64 * weight / whole;
                    let distance = (mixture.source(index).0 as f64 - due).abs();
                    let bound = longest as f64 * (weights.len() - 1) as f64;
                    prop_assert!(distance <= bound + 1e-6 * total as f64, "{distance} > {bound}");
                }
            }
        }
    }

    #[test]
    fn a_source_that_drops_out_leaves_its_share_to_the_others() {
        let mut mixture = Mixture::new([(1.0, 0, false), (2.0, 0, false), (1.0, 0, false)]);
        assert_eq!(mixture.next(), Some(0), "the first listed among equals");
        mixture.admit(0, 10);
        assert_eq!(mixture.next(), Some(1));
        mixture.admit(1, 30);
        assert_eq!(mixture.next(), Some(2));
        mixture.drop_out(2);
        assert_eq!((mixture.next(), mixture.source(0), mixture.source(2)), (Some(0), (0, false), (0, true)));
        mixture.drop_out(0);
        mixture.drop_out(1);
        assert_eq!(mixture.next(), None);
    }
}
