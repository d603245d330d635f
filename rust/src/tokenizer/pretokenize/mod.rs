//! Text → pretokens: the pieces that merging never crosses.

mod regex;

pub use regex::RegexSplitter;
