//! Limits on what is read from a vocabulary file, so that a hostile one costs neither time nor memory.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Bytes of a file at most. The largest in use have about 40 MB.
pub(super) const MAX_FILE_BYTES: u64 = 256 << 20;

/// Merges at most: Llama 3, which lists every way to cut each token, has 280,147.
pub(super) const MAX_MERGES: usize = 1 << 22;

/// The next element of a list that may have `MAX`, or a message that says so.
pub(super) fn within<E: Error>(count: usize, max: usize, what: &str) -> Result<(), E> {
    if count < max { Ok(()) } else { Err(E::custom(format!("more than {max} {what}"))) }
}

/// Reads a list of at most `MAX` elements: `#[serde(deserialize_with = "at_most::<_, _, MAX>")]`.
pub(super) fn at_most<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T, const MAX: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX} elements")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = list.next_element()? {
                within(elements.len(), MAX, "elements")?;
                elements.push(element);
            }
            Ok(elements)
        }
    }
    deserializer.deserialize_seq(List::<T, MAX>(PhantomData))
}
