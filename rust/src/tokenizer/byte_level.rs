//! The byte-level alphabet of GPT-2: each of the 256 bytes as one printable character.
//!
//! Printable Latin-1 bytes stand for themselves; the other 68 are numbered upwards from U+0100.

const fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// The code point of each byte.
const CODE_POINTS: [u16; 256] = {
    let (mut table, mut byte, mut next) = ([0; 256], 0, 0x100);
    while byte < 256 {
        if is_printable(byte as u8) {
            table[byte] = byte as u16;
        } else {
            table[byte] = next;
            next += 1;
        }
        byte += 1;
    }
    table
};

/// The byte of each code point, or `NO_BYTE`.
const BYTES: [u16; 0x144] = {
    let (mut table, mut byte) = ([NO_BYTE; 0x144], 0);
    while byte < 256 {
        table[CODE_POINTS[byte] as usize] = byte as u16;
        byte += 1;
    }
    table
};

const NO_BYTE: u16 = u16::MAX;

/// All bytes in the order of the characters that stand for them: the order in which vocabularies number them.
pub(super) fn alphabet() -> impl Iterator<Item = u8> {
    BYTES.iter().filter(|&&byte| byte != NO_BYTE).map(|&byte| byte as u8)
}

/// Replaces `bytes` by those that `text` stands for; false when a character is outside the alphabet.
pub(super) fn decode_token(text: &str, bytes: &mut Vec<u8>) -> bool {
    bytes.clear();
    for character in text.chars() {
        match BYTES.get(character as usize) {
            Some(&byte) if byte != NO_BYTE => bytes.push(byte as u8),
            _ => return false,
        }
    }
    true
}

/// The text that stands for `bytes`.
pub(super) fn encode_token(bytes: &[u8]) -> String {
    let character = |&byte: &u8| char::from_u32(CODE_POINTS[usize::from(byte)].into());
    bytes.iter().filter_map(character).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_printable_character() {
        let all: Vec<u8> = (0..=255).collect();
        let text = encode_token(&all);
        assert_eq!(text.chars().count(), 256);
        assert!(text.chars().all(|it| !it.is_whitespace() && !it.is_control()));
        let mut back = Vec::new();
        assert!(decode_token(&text, &mut back));
        assert_eq!(back, all);
        assert_eq!(encode_token(b" \n"), "ĠĊ");
        assert_eq!(alphabet().take(3).collect::<Vec<_>>(), b"!\"#");
        assert_eq!(alphabet().last(), Some(0xad));
        assert!(!decode_token("a b", &mut back));
    }
}
