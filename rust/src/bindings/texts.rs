//! Texts from Python: `str`, `bytes`, lists of them, Arrow and numpy string arrays, without a copy where their memory is UTF-8
//! that nobody changes.

use std::borrow::Cow;

use bytes::Bytes;
use numpy::{PyReadonlyArray2, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyUnicodeEncodeError};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyByteArray, PyBytes, PyString};

use super::arrow;
use super::error::to_py;
use crate::ragged::DocumentBatch;
use crate::tokenizer::EncodeError;

/// What to do with text that has no UTF-8: refuse it, or put U+FFFD in its place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Invalid {
    Refused,
    Replaced,
}

impl Invalid {
    pub(super) fn new(is_replaced: bool) -> Self {
        if is_replaced { Self::Replaced } else { Self::Refused }
    }
}

/// One text: UTF-8, or bytes that should be.
pub(super) enum Text {
    Str(PyBackedStr),
    Bytes(PyBackedBytes),
}

impl Text {
    /// The text `object`, which messages call `what`.
    pub(super) fn new(
        object: &Bound<'_, PyAny>,
        invalid: Invalid,
        what: impl Fn() -> String,
    ) -> PyResult<Self> {
        if let Ok(text) = object.cast::<PyString>() {
            return match PyBackedStr::try_from(text.clone()) {
                Ok(text) => Ok(Self::Str(text)),
                Err(error) if error.is_instance_of::<PyUnicodeEncodeError>(object.py()) => match invalid {
                    Invalid::Replaced => without_surrogates(text).map(Self::Str),
                    Invalid::Refused => {
                        let at: usize = error.value(object.py()).getattr("start")?.extract()?;
                        Err(to_py(EncodeError::Surrogate { character: at }.at(&what())))
                    }
                },
                Err(error) => Err(error),
            };
        }
        if object.is_instance_of::<PyBytes>() || object.is_instance_of::<PyByteArray>() {
            return Ok(Self::Bytes(object.extract()?));
        }
        let kind = object.get_type().name()?.to_string();
        Err(PyTypeError::new_err(format!("{} is of type {kind}; expected str or bytes", what())))
    }

    /// As UTF-8.
    pub(super) fn utf8(&self, invalid: Invalid) -> Result<Cow<'_, str>, EncodeError> {
        match self {
            Self::Str(text) => Ok(Cow::Borrowed(text)),
            Self::Bytes(bytes) if invalid == Invalid::Replaced => Ok(String::from_utf8_lossy(bytes)),
            Self::Bytes(bytes) => match str::from_utf8(bytes) {
                Ok(text) => Ok(Cow::Borrowed(text)),
                Err(error) => Err(EncodeError::InvalidUtf8 { byte: error.valid_up_to() }),
            },
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Str(text) => Bytes::from_owner(text),
            Self::Bytes(bytes) => Bytes::from_owner(bytes),
        }
    }
}

/// Pairs of surrogates become the character they stand for, others U+FFFD, as in tiktoken.
fn without_surrogates(text: &Bound<'_, PyString>) -> PyResult<PyBackedStr> {
    let units = text.call_method1("encode", ("utf-16-le", "surrogatepass"))?;
    units.call_method1("decode", ("utf-16-le", "replace"))?.extract()
}

/// Many texts.
pub(super) fn documents(texts: &Bound<'_, PyAny>, invalid: Invalid) -> PyResult<DocumentBatch> {
    if texts.is_instance_of::<PyString>() || texts.is_instance_of::<PyBytes>() {
        return Err(PyTypeError::new_err("texts is a single text; expected a list or an array of them"));
    }
    let batch = match arrow::documents(texts)? {
        Some(batch) => batch,
        None => match of_numpy(texts, invalid)? {
            Some(batch) => batch,
            None => of_objects(texts, invalid)?,
        },
    };
    Ok(if invalid == Invalid::Replaced { replaced(batch) } else { batch })
}

fn of_objects(texts: &Bound<'_, PyAny>, invalid: Invalid) -> PyResult<DocumentBatch> {
    let mut batch = DocumentBatch::new();
    for (index, text) in texts.try_iter()?.enumerate() {
        let text = Text::new(&text?, invalid, || format!("texts[{index}]"))?.into_bytes();
        let (length, index) = (text.len(), text_index(&mut batch, text, index)?);
        batch.push(index, 0, length);
    }
    Ok(batch)
}

fn text_index(batch: &mut DocumentBatch, text: Bytes, index: usize) -> PyResult<u32> {
    match u32::try_from(text.len()) {
        Ok(_) => Ok(batch.add_buffer(text)),
        Err(_) => Err(to_py(EncodeError::TooLong { bytes: text.len() }.at(&format!("texts[{index}]")))),
    }
}

/// An array of fixed-width strings: UTF-32 becomes UTF-8, and bytes are copied, since their owner may change them.
fn of_numpy(texts: &Bound<'_, PyAny>, invalid: Invalid) -> PyResult<Option<DocumentBatch>> {
    let Ok(array) = texts.cast::<PyUntypedArray>() else { return Ok(None) };
    if array.ndim() != 1 {
        return Err(PyTypeError::new_err(format!(
            "texts is an array of {} dimensions; expected 1",
            array.ndim()
        )));
    }
    let dtype = array.dtype();
    let kind: String = dtype.getattr("kind")?.extract()?;
    if kind == "O" || kind == "T" {
        return Ok(None);
    }
    if kind != "U" && kind != "S" {
        return Err(PyTypeError::new_err(format!("texts is an array of {dtype}; expected strings")));
    }
    let (length, width) = (array.len(), dtype.getattr("itemsize")?.extract::<usize>()?);
    if length == 0 || width == 0 {
        return Ok(Some(DocumentBatch::from_texts(std::iter::repeat_n(b"", length))));
    }
    let rows = |unit: &str, size: usize| {
        let native = dtype.call_method1("newbyteorder", ("=",))?;
        let packed = texts.py().import("numpy")?.call_method1("ascontiguousarray", (texts, native))?;
        packed.call_method1("view", (unit,))?.call_method1("reshape", ((length, width / size),))
    };
    if kind == "S" {
        let rows: PyReadonlyArray2<'_, u8> = rows("uint8", 1)?.extract()?;
        let rows = rows.as_array();
        return Ok(Some(DocumentBatch::from_texts(
            rows.outer_iter().map(|row| unpadded(row.iter().copied())),
        )));
    }
    let rows: PyReadonlyArray2<'_, u32> = rows("uint32", 4)?.extract()?;
    let mut decoded = Vec::with_capacity(length);
    for (index, row) in rows.as_array().outer_iter().enumerate() {
        let text = of_utf32(&unpadded(row.iter().copied()), invalid);
        decoded.push(text.map_err(|error| to_py(error.at(&format!("texts[{index}]"))))?);
    }
    Ok(Some(DocumentBatch::from_texts(decoded)))
}

/// A string of a fixed-width array: it ends with its last unit that is not zero.
fn unpadded<T: Copy + Default + PartialEq>(units: impl Iterator<Item = T>) -> Vec<T> {
    let mut units: Vec<T> = units.collect();
    while units.pop_if(|unit| *unit == T::default()).is_some() {}
    units
}

fn of_utf32(units: &[u32], invalid: Invalid) -> Result<String, EncodeError> {
    let character = |(at, &unit): (usize, &u32)| match char::from_u32(unit) {
        Some(character) => Ok(character),
        None if invalid == Invalid::Replaced => Ok(char::REPLACEMENT_CHARACTER),
        None => Err(EncodeError::Surrogate { character: at }),
    };
    units.iter().enumerate().map(character).collect()
}

/// The batch with invalid UTF-8 replaced; documents without any stay where they are.
fn replaced(batch: DocumentBatch) -> DocumentBatch {
    if batch.iter().all(|text| str::from_utf8(text).is_ok()) {
        return batch;
    }
    let texts: Vec<Cow<'_, str>> = batch.iter().map(String::from_utf8_lossy).collect();
    DocumentBatch::from_texts(texts.iter().map(|text| text.as_bytes()))
}
