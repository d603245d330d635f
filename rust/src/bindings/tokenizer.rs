//! `Tokenizer` for Python: arguments in, one call, arrays out. The GIL is released around the work.

use std::sync::{Mutex, PoisonError};

use numpy::{IntoPyArray, PyArray1, PyReadwriteArray1};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::PyBytes;

use super::error::to_py;
use crate::error::{Error, Place};
use crate::ragged::TokenBatch;
use crate::tokenizer::{EncodeError, Encoder, Rewriter, Tokenizer};

/// A text: `str`, or `bytes` that should be UTF-8.
#[derive(FromPyObject)]
enum Text {
    #[pyo3(transparent)]
    Str(PyBackedStr),
    #[pyo3(transparent)]
    Bytes(PyBackedBytes),
}

impl Text {
    fn encode(
        &self,
        encoder: &mut Encoder,
        allowed: Option<&Rewriter>,
        out: &mut Vec<u32>,
    ) -> Result<(), EncodeError> {
        match (self, allowed) {
            (Self::Str(text), None) => encoder.encode_str(text, out),
            (Self::Str(text), Some(allowed)) => encoder.encode_with(allowed, text, out),
            (Self::Bytes(text), None) => encoder.encode(text, out),
            (Self::Bytes(text), Some(allowed)) => match str::from_utf8(text) {
                Ok(text) => encoder.encode_with(allowed, text, out),
                Err(error) => Err(EncodeError::InvalidUtf8 { byte: error.valid_up_to() }),
            },
        }
    }
}

type Batch<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<i64>>);

#[pyclass(frozen, name = "Tokenizer", module = "nanofast._nanofast")]
pub(super) struct PyTokenizer {
    tokenizer: Tokenizer,
    /// Encoders that no thread is using; kept, since their caches are warm.
    idle: Mutex<Vec<Encoder>>,
}

impl From<Tokenizer> for PyTokenizer {
    fn from(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, idle: Mutex::default() }
    }
}

impl PyTokenizer {
    pub(super) fn inner(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub(super) fn with_encoder<R>(&self, work: impl FnOnce(&mut Encoder) -> R) -> R {
        // A poisoned lock guards a list that is whole between any two calls.
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let encoder = idle().pop();
        let mut encoder = encoder.unwrap_or_else(|| self.tokenizer.encoder());
        let result = work(&mut encoder);
        idle().push(encoder);
        result
    }

    fn allowed(&self, contents: &[String]) -> PyResult<Option<Rewriter>> {
        if contents.is_empty() {
            return Ok(None);
        }
        let contents: Vec<&str> = contents.iter().map(String::as_str).collect();
        self.tokenizer.allow(&contents).map(Some).map_err(to_py)
    }

    fn ids(&self, py: Python<'_>, text: &Text, allowed_special: &[String]) -> PyResult<Vec<u32>> {
        let allowed = self.allowed(allowed_special)?;
        let ids = py.detach(|| {
            let mut ids = Vec::new();
            self.with_encoder(|encoder| text.encode(encoder, allowed.as_ref(), &mut ids)).map(|()| ids)
        });
        ids.map_err(|error| self.failed(None, error))
    }

    fn failed(&self, document: Option<usize>, error: EncodeError) -> PyErr {
        let what = document.map_or_else(|| "text".to_owned(), |index| format!("texts[{index}]"));
        let place = Place::shard(what);
        to_py(match error {
            EncodeError::InvalidUtf8 { byte } => Error::InvalidUtf8 { place, byte },
            other => Error::Tokenize { place, reason: other.to_string() },
        })
    }
}

#[pymethods]
impl PyTokenizer {
    #[staticmethod]
    fn from_name(py: Python<'_>, name: &str) -> PyResult<Self> {
        py.detach(|| Tokenizer::from_name(name)).map(Self::from).map_err(to_py)
    }

    #[staticmethod]
    fn from_json(py: Python<'_>, data: &[u8], name: &str) -> PyResult<Self> {
        py.detach(|| Tokenizer::from_json(data, name)).map(Self::from).map_err(to_py)
    }

    #[staticmethod]
    fn from_tiktoken_file(
        py: Python<'_>,
        data: &[u8],
        pattern: &str,
        special_tokens: Vec<(String, u32)>,
        name: &str,
    ) -> PyResult<Self> {
        let load = || Tokenizer::from_tiktoken(data, pattern, &special_tokens, name);
        py.detach(load).map(Self::from).map_err(to_py)
    }

    #[staticmethod]
    fn from_ranks(
        py: Python<'_>,
        ranks: Vec<(PyBackedBytes, u64)>,
        pattern: &str,
        special_tokens: Vec<(String, u32)>,
        name: &str,
    ) -> PyResult<Self> {
        let ranks = ranks.iter().map(|(token, rank)| (&**token, *rank));
        py.detach(|| Tokenizer::from_ranks(ranks, pattern, &special_tokens, name))
            .map(Self::from)
            .map_err(to_py)
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &py.detach(|| self.tokenizer.to_bytes()))
    }

    #[pyo3(signature = (text, allowed_special = Vec::new()))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        text: Text,
        allowed_special: Vec<String>,
    ) -> PyResult<Bound<'py, PyArray1<u32>>> {
        Ok(self.ids(py, &text, &allowed_special)?.into_pyarray(py))
    }

    /// Writes the ids to the front of `out`; returns how many.
    fn encode_to(&self, py: Python<'_>, text: Text, mut out: PyReadwriteArray1<'_, u32>) -> PyResult<usize> {
        let ids = self.ids(py, &text, &[])?;
        let out = out.as_slice_mut()?;
        let Some(place) = out.get_mut(..ids.len()) else {
            let rule = format!("the text has {} tokens; pass a larger array", ids.len());
            return Err(to_py(Error::config("out", format!("{} ids", out.len()), rule)));
        };
        place.copy_from_slice(&ids);
        Ok(ids.len())
    }

    fn count_tokens(&self, py: Python<'_>, text: Text) -> PyResult<usize> {
        Ok(self.ids(py, &text, &[])?.len())
    }

    fn encode_batch<'py>(&self, py: Python<'py>, texts: Vec<Text>) -> PyResult<Batch<'py>> {
        let encoded = py.detach(|| {
            self.with_encoder(|encoder| {
                let mut batch = TokenBatch::new();
                for (index, text) in texts.iter().enumerate() {
                    text.encode(encoder, None, batch.values_mut()).map_err(|error| (index, error))?;
                    batch.end_document();
                }
                Ok(batch)
            })
        });
        let (values, offsets) =
            encoded.map_err(|(index, error)| self.failed(Some(index), error))?.into_parts();
        let offsets: Vec<i64> = offsets.into_iter().map(|offset| offset as i64).collect();
        Ok((values.into_pyarray(py), offsets.into_pyarray(py)))
    }

    fn decode_bytes<'py>(&self, py: Python<'py>, ids: Vec<u32>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.tokenizer.decode_bytes(&ids).map_err(to_py)?))
    }

    fn to_tiktoken<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.tokenizer.to_tiktoken().map_err(to_py)?))
    }

    fn to_hf_json<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &py.detach(|| self.tokenizer.to_hf_json()))
    }

    /// Bytes of each token, 0 for special tokens and holes.
    fn token_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i32>> {
        let specials = self.tokenizer.special_tokens();
        let is_special = |id| specials.binary_search_by_key(&id, |special| special.id).is_ok();
        let length = |id| match is_special(id) {
            true => 0,
            false => self.tokenizer.token_bytes(id).map_or(0, |token| token.len() as i32),
        };
        (0..self.tokenizer.vocab_size() as u32).map(length).collect::<Vec<_>>().into_pyarray(py)
    }

    #[getter]
    fn name(&self) -> &str {
        self.tokenizer.name()
    }

    #[getter]
    fn vocab_size(&self) -> usize {
        self.tokenizer.vocab_size()
    }

    #[getter]
    fn bos_id(&self) -> Option<u32> {
        self.tokenizer.bos_id()
    }

    #[getter]
    fn special_tokens(&self) -> Vec<(&str, u32)> {
        self.tokenizer.special_tokens().iter().map(|special| (&*special.content, special.id)).collect()
    }

    #[getter]
    fn fingerprint(&self) -> &str {
        self.tokenizer.fingerprint()
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let _ = slf;
        Err(PyTypeError::new_err("pickle nanofast.Tokenizer, not its extension object"))
    }
}

/// Adds this file's classes to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyTokenizer>()
}
