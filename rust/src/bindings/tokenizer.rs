//! `Tokenizer` for Python: arguments in, one call, arrays out. The GIL is released around the work.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadwriteArray1};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::encoding::{Options, fits};
use super::error::to_py;
use super::texts::{self, Text};
use crate::tokenizer::{DEFAULT_CACHE_BYTES, EncodeError, Encoder, Tokenizer};

/// Ids whose memory an encoder keeps from one text to the next: 16 MiB.
const MAX_KEPT_IDS: usize = 1 << 22;

type Batch<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<i64>>);
type Located<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray2<i64>>);

#[pyclass(frozen, name = "Tokenizer", module = "nanofast._nanofast")]
pub(super) struct PyTokenizer {
    tokenizer: Tokenizer,
    /// Memory for the ids of one text that no thread is using.
    idle: Mutex<Vec<Vec<u32>>>,
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

    pub(super) fn with_encoder<R>(&self, work: impl FnOnce(&mut Encoder, &mut Vec<u32>) -> R) -> R {
        // A poisoned lock guards a list that is whole between any two calls.
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ids = idle().pop().unwrap_or_default();
        ids.clear();
        let mut encoder = self.tokenizer.take_encoder(DEFAULT_CACHE_BYTES);
        let result = work(&mut encoder, &mut ids);
        self.tokenizer.give_back(encoder);
        // What a huge text took goes back.
        ids.shrink_to(MAX_KEPT_IDS);
        idle().push(ids);
        result
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
    #[pyo3(signature = (path, pattern = None, special_tokens = None))]
    fn from_file(
        py: Python<'_>,
        path: PathBuf,
        pattern: Option<&str>,
        special_tokens: Option<Vec<(String, u32)>>,
    ) -> PyResult<Self> {
        let load = || Tokenizer::from_file(&path, pattern, special_tokens.as_deref());
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

    #[pyo3(signature = (text, allowed_special = Vec::new(), replace_invalid = false))]
    fn encode<'py>(
        &self,
        text: &Bound<'py, PyAny>,
        allowed_special: Vec<String>,
        replace_invalid: bool,
    ) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let options = Options::new(&self.tokenizer, &allowed_special, replace_invalid)?;
        Ok(self.with_ids(text, &options, |_, ids| std::mem::take(ids))?.into_pyarray(text.py()))
    }

    /// Writes the ids to the front of `out`; returns how many.
    #[pyo3(signature = (text, out, allowed_special = Vec::new(), replace_invalid = false))]
    fn encode_to(
        &self,
        text: &Bound<'_, PyAny>,
        mut out: PyReadwriteArray1<'_, u32>,
        allowed_special: Vec<String>,
        replace_invalid: bool,
    ) -> PyResult<usize> {
        let options = Options::new(&self.tokenizer, &allowed_special, replace_invalid)?;
        let out = out.as_slice_mut()?;
        let room = out.len();
        let count = self.with_ids(text, &options, |_, ids| {
            if let Some(place) = out.get_mut(..ids.len()) {
                place.copy_from_slice(ids);
            }
            ids.len()
        })?;
        fits(count, room)?;
        Ok(count)
    }

    /// Writes the ids of all texts to the front of `out`; returns where each text begins, and the end.
    #[pyo3(signature = (texts, out, allowed_special = Vec::new(), replace_invalid = false))]
    fn encode_batch_to<'py>(
        &self,
        texts: &Bound<'py, PyAny>,
        mut out: PyReadwriteArray1<'_, u32>,
        allowed_special: Vec<String>,
        replace_invalid: bool,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let options = Options::new(&self.tokenizer, &allowed_special, replace_invalid)?;
        let documents = texts::documents(texts, options.invalid)?;
        let (py, out) = (texts.py(), out.as_slice_mut()?);
        let offsets = py.detach(|| self.encode_all_to(&documents, &options, out))?;
        fits(offsets.last().map_or(0, |&end| end as usize), out.len())?;
        Ok(offsets.into_pyarray(py))
    }

    /// The ids, and first byte and end of each in the text.
    #[pyo3(signature = (text, allowed_special = Vec::new(), replace_invalid = false))]
    fn encode_with_offsets<'py>(
        &self,
        text: &Bound<'py, PyAny>,
        allowed_special: Vec<String>,
        replace_invalid: bool,
    ) -> PyResult<Located<'py>> {
        let options = Options::new(&self.tokenizer, &allowed_special, replace_invalid)?;
        let located = self.with_ids(text, &options, |text, ids| {
            let spans = self.tokenizer.spans(options.allowed.as_ref(), text, ids)?;
            let bounds = spans.iter().flat_map(|span| [span.start as i64, span.end as i64]);
            Ok((std::mem::take(ids), bounds.collect::<Vec<i64>>()))
        })?;
        let (ids, bounds) = located.map_err(|error: EncodeError| to_py(error.at("text")))?;
        let (py, count) = (text.py(), ids.len());
        Ok((ids.into_pyarray(py), bounds.into_pyarray(py).reshape([count, 2])?))
    }

    #[pyo3(signature = (text, allowed_special = Vec::new(), replace_invalid = false))]
    fn count_tokens(
        &self,
        text: &Bound<'_, PyAny>,
        allowed_special: Vec<String>,
        replace_invalid: bool,
    ) -> PyResult<usize> {
        let options = Options::new(&self.tokenizer, &allowed_special, replace_invalid)?;
        let (py, text) = (text.py(), Text::new(text, options.invalid, || "text".into())?);
        let count = py.detach(|| {
            let text = text.utf8(options.invalid)?;
            self.with_encoder(|encoder, _| encoder.count(options.allowed.as_ref(), &text))
        });
        count.map_err(|error| to_py(error.at("text")))
    }

    #[pyo3(signature = (texts, num_threads = 1, allowed_special = Vec::new(), replace_invalid = false))]
    fn encode_batch<'py>(
        &self,
        texts: &Bound<'py, PyAny>,
        num_threads: usize,
        allowed_special: Vec<String>,
        replace_invalid: bool,
    ) -> PyResult<Batch<'py>> {
        let options = Options::new(&self.tokenizer, &allowed_special, replace_invalid)?;
        let documents = texts::documents(texts, options.invalid)?;
        let (values, offsets) = texts.py().detach(|| self.encode_all(&documents, &options, num_threads))?;
        let offsets: Vec<i64> = offsets.into_iter().map(|offset| offset as i64).collect();
        Ok((values.into_pyarray(texts.py()), offsets.into_pyarray(texts.py())))
    }

    fn decode_bytes<'py>(
        &self,
        py: Python<'py>,
        ids: PyReadonlyArray1<'py, u32>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = match ids.as_slice() {
            Ok(ids) => self.tokenizer.decode_bytes(ids),
            Err(_) => self.tokenizer.decode_bytes(&ids.as_array().to_vec()),
        };
        Ok(PyBytes::new(py, &bytes.map_err(to_py)?))
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

    /// Ids that the file's post-processor puts before and behind a text.
    #[getter]
    fn frame(&self) -> (Vec<u32>, Vec<u32>) {
        let frame = &self.tokenizer.definition().frame;
        (frame.before.clone(), frame.after.clone())
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
