//! `Tokenizer` for Python: arguments in, one call, arrays out. The GIL is released around the work.

use numpy::{IntoPyArray, PyArray1};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::PyBytes;

use super::error::to_py;
use crate::error::{Error, Place};
use crate::ragged::TokenBatch;
use crate::tokenizer::{EncodeError, Encoder, Tokenizer};

/// A text: `str`, or `bytes` that should be UTF-8.
#[derive(FromPyObject)]
enum Text {
    #[pyo3(transparent)]
    Str(PyBackedStr),
    #[pyo3(transparent)]
    Bytes(PyBackedBytes),
}

impl Text {
    fn encode(&self, encoder: &mut Encoder, out: &mut Vec<u32>) -> Result<(), EncodeError> {
        match self {
            Self::Str(text) => encoder.encode_str(text, out),
            Self::Bytes(text) => encoder.encode(text, out),
        }
    }
}

type Batch<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<i64>>);

#[pyclass(frozen, name = "Tokenizer", module = "nanofast._nanofast")]
pub(super) struct PyTokenizer {
    tokenizer: Tokenizer,
    /// Kept warm between calls; a second thread that calls meanwhile gets one of its own.
    encoder: std::sync::Mutex<Encoder>,
}

impl From<Tokenizer> for PyTokenizer {
    fn from(tokenizer: Tokenizer) -> Self {
        let encoder = std::sync::Mutex::new(tokenizer.encoder());
        Self { tokenizer, encoder }
    }
}

impl PyTokenizer {
    pub(super) fn inner(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn with_encoder<R>(&self, work: impl FnOnce(&mut Encoder) -> R) -> R {
        match self.encoder.try_lock() {
            Ok(mut encoder) => work(&mut encoder),
            Err(_) => work(&mut self.tokenizer.encoder()),
        }
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

    fn encode<'py>(&self, py: Python<'py>, text: Text) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let ids = py.detach(|| {
            let mut ids = Vec::new();
            self.with_encoder(|encoder| text.encode(encoder, &mut ids)).map(|()| ids)
        });
        Ok(ids.map_err(|error| self.failed(None, error))?.into_pyarray(py))
    }

    #[pyo3(signature = (texts, num_threads = 1))]
    fn encode_batch<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<Text>,
        num_threads: usize,
    ) -> PyResult<Batch<'py>> {
        let _ = num_threads;
        let encoded = py.detach(|| {
            self.with_encoder(|encoder| {
                let mut batch = TokenBatch::new();
                for (index, text) in texts.iter().enumerate() {
                    text.encode(encoder, batch.values_mut()).map_err(|error| (index, error))?;
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
