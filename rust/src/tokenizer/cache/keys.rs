//! Keys and homes of many pretokens: the same as [`key_of`] and [`ShortCache::home`], with vectors where there are any.

#[cfg(target_arch = "aarch64")]
use super::keys_neon as vectors;
#[cfg(target_arch = "x86_64")]
use super::keys_x86 as vectors;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::short::MAX_BYTES;
use super::short::{Key, ShortCache, key_of};
use crate::tokenizer::probe::fetch_far;

/// Writes the key and the home of each pretoken of `text` to the front of `keys` and `homes`, and asks for their lines.
/// Pretoken `i` is `text[starts[i]..starts[i + 1]]`. Bytes behind the last one save it a way of its own.
///
/// # Panics
/// When `keys` or `homes` are shorter than the pretokens are many.
pub(crate) fn write_keys(
    cache: &ShortCache,
    text: &[u8],
    starts: &[u32],
    keys: &mut [Key],
    homes: &mut [u32],
) {
    let count = starts.len().saturating_sub(1);
    let (keys, homes) = (&mut keys[..count], &mut homes[..count]);
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if cache.hashes_with_aes() {
        // The last pretokens have no 16 bytes behind their start: theirs are taken from a copy of the text's end.
        let has_room = |&&start: &&u32| start as usize + MAX_BYTES <= text.len();
        let done = count - starts[..count].iter().rev().take_while(|start| !has_room(start)).count();
        let (first_keys, last_keys) = keys.split_at_mut(done);
        let (first_homes, last_homes) = homes.split_at_mut(done);
        // SAFETY: `hashes_with_aes` has checked the processor. Starts ascend, so the first `done` of them have 16 bytes of
        // text; there is a start behind each, and as many keys and homes.
        #[expect(unsafe_code, reason = "vector instructions, unchecked loads")]
        unsafe {
            vectors::write_keys(cache, text, &starts[..=done], first_keys, first_homes);
        }
        if done < count {
            let end = TextEnd::of(text, &starts[done..=count]);
            // SAFETY: as above; the others have 16 bytes of the copy, which has as many more as the text's end has.
            #[expect(unsafe_code, reason = "vector instructions, unchecked loads")]
            unsafe {
                vectors::write_keys(cache, &end.bytes, &end.starts[..=count - done], last_keys, last_homes);
            }
        }
        return;
    }
    for at in 0..count {
        let start = starts[at] as usize;
        keys[at] = key_of(text, start, starts[at + 1] as usize - start);
        homes[at] = cache.home(keys[at]);
        fetch_far(cache.entries(), homes[at]);
    }
}

/// The end of a text with zeros behind it, and the starts that lie in it.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
struct TextEnd {
    bytes: [u8; 2 * MAX_BYTES],
    starts: [u32; MAX_BYTES + 1],
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl TextEnd {
    /// Of the last pretokens of `text`, which start in its last 15 bytes; `starts` has the text's end as well.
    fn of(text: &[u8], starts: &[u32]) -> Self {
        let mut end = Self { bytes: [0; 2 * MAX_BYTES], starts: [0; MAX_BYTES + 1] };
        let begin = match text.last_chunk::<MAX_BYTES>() {
            Some(last) => {
                end.bytes[..MAX_BYTES].copy_from_slice(last);
                text.len() - MAX_BYTES
            }
            None => {
                end.bytes[..text.len()].copy_from_slice(text);
                0
            }
        };
        end.starts.iter_mut().zip(starts).for_each(|(to, &from)| *to = from - begin as u32);
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_homes_are_those_of_one_pretoken_at_a_time() {
        let whole: Vec<u8> = (0..70).map(|index| b'a' + index % 26).collect();
        let made = || ShortCache::new(10);
        for cache in [made(), made().one_by_one(), made().without_aes()] {
            for length in 1..=whole.len() {
                for step in [1, 2, 3, 7, 15, 16, 17, 40] {
                    let text = &whole[..length];
                    let starts: Vec<u32> = (0..length as u32).step_by(step).chain([length as u32]).collect();
                    let count = starts.len() - 1;
                    let (mut keys, mut homes) = (vec![0; count], vec![0; count]);
                    write_keys(&cache, text, &starts, &mut keys, &mut homes);
                    let (mut with_more, mut homes_with_more) = (vec![0; count], vec![0; count]);
                    write_keys(&cache, &whole, &starts, &mut with_more, &mut homes_with_more);
                    assert_eq!(
                        (&with_more, &homes_with_more),
                        (&keys, &homes),
                        "whatever lies behind the text"
                    );
                    for (at, &key) in keys.iter().enumerate() {
                        let (start, end) = (starts[at] as usize, starts[at + 1] as usize);
                        assert_eq!(key, key_of(text, start, end - start), "{start}..{end} of {length}");
                        assert_eq!(homes[at], cache.home(key));
                    }
                }
            }
        }
    }
    #[test]
    fn homes_by_aes_are_the_same_on_every_processor() {
        let cache = ShortCache::new(16);
        if !cache.hashes_with_aes() {
            return;
        }
        let homes = ["a", "the", " house", "sixteen letters."].map(|text| {
            cache.home(key_of(text.as_bytes(), 0, text.len())) //
        });
        assert_eq!(homes, [55_986, 1_570, 30_067, 2_544]);
    }
}
