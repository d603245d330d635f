//! Which of the well-known split patterns a pattern is.
//!
//! The patterns in use are few and share their parts, so they are told apart by their text and then described by what they
//! vary in. A pattern that is not listed here is split by its own expression.

use crate::tokenizer::pattern::Pattern;

/// A split pattern with a splitter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// GPT-2's: contractions, an optional space before letters, digits or the rest, runs of whitespace.
    Gpt2,
    /// GPT-4's and its children: any one character before letters, digits in groups, newlines after punctuation.
    Gpt4 {
        /// Digits in a group at most.
        digits: u32,
        /// Whether whitespace up to the end of the text is one pretoken, newlines or not.
        whole_tail: bool,
    },
    /// GPT-4o's: words also end where lower case is followed by upper case, and keep their contraction.
    Gpt4o,
    /// DeepSeek V3's: numbers, stretches of ideographs and of all else, each cut into words, where marks are letters.
    DeepSeek,
}

/// The parts that differ in spelling, not in meaning.
const GPT2: &[&str] = &[
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
];

/// `<digits>` stands for the digits' repetition.
const GPT4: &[(&str, bool)] = &[
    (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|<digits>+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
        true,
    ),
    (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|<digits>| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        false,
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|<digits>| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        false,
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|<digits>| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+\z|\s*[\r\n]+|\s+(?!\S)|\s+",
        true,
    ),
];

const DIGITS: &[(&str, u32)] =
    &[(r"\p{N}{1,3}", 3), (r"\p{N}{1,2}", 2), (r"\p{N}", 1), (r"\p{N}+", u32::MAX)];

const GPT4O: &[&str] = &[concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)];

const DEEPSEEK: [&str; 3] = [
    r"\p{N}{1,3}",
    "[一-龥\u{3040}-ゟ゠-ヿ]+",
    concat!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##,
        "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*",
        "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
    ),
];

impl Family {
    /// The family of `pattern`, if it is a well-known one.
    pub fn of(pattern: &Pattern) -> Option<Self> {
        let keeps_gaps = pattern.stages.iter().all(|stage| stage.keep_gaps);
        if keeps_gaps && pattern.stages.iter().map(|stage| &*stage.regex).eq(DEEPSEEK) {
            return Some(Self::DeepSeek);
        }
        // Every character is matched by each of the other patterns, so it does not matter what happens to gaps.
        let [stage] = &*pattern.stages else { return None };
        let text = stage.regex.as_str();
        // What the engines read differently: `{1,3}+` (but not `\p{L}+`), and `$`.
        let ends_repetition = |bytes: &[u8]| bytes[0].is_ascii_digit() && bytes[1..] == *b"}+";
        if stage.oniguruma && (text.as_bytes().windows(3).any(ends_repetition) || text.contains('$')) {
            return None;
        }
        if GPT2.contains(&text) {
            return Some(Self::Gpt2);
        }
        if GPT4O.contains(&text) {
            return Some(Self::Gpt4o);
        }
        GPT4.iter().find_map(|(template, whole_tail)| {
            let digits =
                DIGITS.iter().find(|(spelling, _)| template.replace("<digits>", spelling) == text)?;
            Some(Self::Gpt4 { digits: digits.1, whole_tail: *whole_tail })
        })
    }

    /// The pattern without possessive repetitions and `$`, equal in what it cuts: the last spelling of each kind.
    ///
    /// None for a pattern of several expressions, which has no other spelling.
    pub(crate) fn plain_spelling(self) -> Option<String> {
        let spelling = match self {
            Self::DeepSeek => return None,
            Self::Gpt2 => GPT2[GPT2.len() - 1].to_owned(),
            Self::Gpt4o => GPT4O[0].to_owned(),
            Self::Gpt4 { digits, whole_tail } => {
                let template =
                    GPT4.iter().rev().find(|(_, tail)| *tail == whole_tail).expect("there are both kinds").0;
                let (spelling, _) =
                    DIGITS.iter().find(|(_, most)| *most == digits).expect("digits come from the list");
                template.replace("<digits>", spelling)
            }
        };
        Some(spelling)
    }
}
