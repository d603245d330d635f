//! A split pattern in the words of Oniguruma, the engine of Hugging Face tokenizers.
//!
//! | here, as in tiktoken | Oniguruma | |
//! |---|---|---|
//! | `\p{N}{1,3}+` | `(?>\p{N}{1,3})` | there, `+` repeats the repetition |
//! | `$` | `\z` | there, also before any newline |
//! | `^` | `\A` | there, also behind any newline |

/// `regex` so that Oniguruma matches what this crate matches.
pub(super) fn translated(regex: &str) -> String {
    let mut out = String::with_capacity(regex.len() + 16);
    let mut rest = regex.chars().peekable();
    // Where the groups that are open begin, and what a repetition would repeat.
    let (mut groups, mut atom) = (Vec::new(), 0);
    while let Some(character) = rest.next() {
        let start = out.len();
        match character {
            '\\' => {
                out.push('\\');
                out.extend(rest.next());
                if rest.peek() == Some(&'{') && matches!(out.chars().next_back(), Some('p' | 'P' | 'x' | 'u'))
                {
                    copy_until('}', &mut rest, &mut out);
                }
                atom = start;
            }
            '[' => {
                copy_class(&mut rest, &mut out);
                atom = start;
            }
            '(' => {
                groups.push(start);
                out.push('(');
                if rest.peek() == Some(&'?') {
                    out.extend(rest.next());
                }
            }
            ')' => {
                out.push(')');
                atom = groups.pop().unwrap_or(start);
            }
            '$' => out.push_str(r"\z"),
            '^' => out.push_str(r"\A"),
            '{' => {
                out.push('{');
                copy_until('}', &mut rest, &mut out);
                if rest.next_if_eq(&'+').is_some() {
                    out.insert_str(atom, "(?>");
                    out.push(')');
                }
            }
            '?' | '*' | '+' | '|' => out.push(character),
            _ => {
                out.push(character);
                atom = start;
            }
        }
    }
    out
}

type Rest<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn copy_until(end: char, rest: &mut Rest<'_>, out: &mut String) {
    for character in rest.by_ref() {
        out.push(character);
        if character == end {
            break;
        }
    }
}

/// Copies a class, whose `[` has been taken, with the classes within it.
fn copy_class(rest: &mut Rest<'_>, out: &mut String) {
    out.push('[');
    let mut depth = 1;
    while depth > 0 {
        let Some(character) = rest.next() else { return };
        out.push(character);
        match character {
            '\\' => out.extend(rest.next()),
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::translated;

    #[test]
    fn only_what_is_read_differently_is_changed() {
        for (from, to) in [
            (r"\p{N}{1,3}+| ?[^\s\p{L}]++[\r\n]*+|\s++$", r"(?>\p{N}{1,3})| ?[^\s\p{L}]++[\r\n]*+|\s++\z"),
            (r"(?:a|[b-c]){2}+d{3}", r"(?>(?:a|[b-c]){2})d{3}"),
            (r"[$^{1}+]\$\{a}+^", r"[$^{1}+]\$\{a}+\A"),
            (r"[^\]$]{2,}+", r"(?>[^\]$]{2,})"),
        ] {
            assert_eq!(translated(from), to);
        }
    }
}
