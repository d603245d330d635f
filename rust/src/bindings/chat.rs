//! Conversations for Python: what a loader of them is asked for, and rendering one or the first of a file.

use std::path::PathBuf;

use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use serde::Deserialize;

use super::error::to_py;
use super::remote::{self, Named, PyLocation, interruptible};
use super::tokenizer::PyTokenizer;
use crate::config::{ChatConfig, TooLong};
use crate::error::{Error, Place, Result};
use crate::pool::Pool;
use crate::ragged::NOT_LEARNED;
use crate::source::{self, ConversationSource, Layout, Location};
use crate::tokenizer::{ChatTemplate, EncodeError, Renderer, Tokenizer};

/// Keywords of the Python class, as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChatArguments {
    template: ChatTemplate,
    layout: String,
    messages_column: Option<String>,
    text_column: Option<String>,
    index_folder: Option<PathBuf>,
    too_long: String,
}

impl ChatArguments {
    pub(super) fn parse(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|error| Error::config("chat", "JSON", error.to_string()))
    }

    fn layout(&self) -> Result<Layout> {
        Layout::parse(&self.layout, self.messages_column.as_deref())
    }

    pub(super) fn source(&self) -> Result<ConversationSource> {
        let (text_column, index_folder) = (self.text_column.clone(), self.index_folder.clone());
        Ok(ConversationSource { layout: self.layout()?, text_column, index_folder })
    }

    pub(super) fn config(&self) -> Result<ChatConfig> {
        let (layout, template) = (self.layout()?.name(), &self.template);
        let texts = self.text_column.as_deref().map(|column| format!(", text {column}")).unwrap_or_default();
        let identity = format!(
            "{layout}{texts}, {}, {} {}",
            self.too_long,
            template.name,
            &template.fingerprint()[..16]
        );
        Ok(ChatConfig { too_long: TooLong::parse(&self.too_long)?, identity })
    }

    pub(super) fn renderer(self, tokenizer: Tokenizer) -> Result<Renderer> {
        Renderer::new(self.template, tokenizer)
    }
}

type Rendered<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<bool>>);

fn rendered<'py>(py: Python<'py>, tokens: &[u32]) -> Rendered<'py> {
    let mask: Vec<bool> = tokens.iter().map(|token| token & NOT_LEARNED == 0).collect();
    let ids: Vec<u32> = tokens.iter().map(|token| token & !NOT_LEARNED).collect();
    (ids.into_pyarray(py), mask.into_pyarray(py))
}

/// The ids of one conversation and which of them are learned; with `prompts`, what stands in front of an answer follows.
#[pyfunction]
fn render<'py>(
    py: Python<'py>,
    tokenizer: &PyTokenizer,
    chat_json: &str,
    conversation_json: &str,
    prompts: bool,
) -> PyResult<Rendered<'py>> {
    let render = || {
        let chat = ChatArguments::parse(chat_json)?;
        let mut conversation = Vec::new();
        source::push_json(&mut conversation, conversation_json.as_bytes(), &chat.layout()?);
        let renderer = chat.renderer(tokenizer.inner().clone())?;
        let place = || Place::shard("conversation");
        tokenizer
            .with_encoder(|encoder, _| renderer.render(encoder, &conversation, prompts))
            .map_err(|error| refused(error, place()))
    };
    Ok(rendered(py, &py.detach(render).map_err(to_py)?))
}

fn refused(error: EncodeError, place: Place) -> Error {
    match error {
        EncodeError::Conversation { message, reason } => Error::Conversation { place, message, reason },
        other => Error::Tokenize { place, reason: other.to_string() },
    }
}

/// The first `count` conversations of a file, rendered.
#[pyfunction]
fn render_rows<'py>(
    py: Python<'py>,
    tokenizer: &PyTokenizer,
    chat_json: &str,
    path: Named<'py>,
    count: usize,
) -> PyResult<Vec<Rendered<'py>>> {
    let location = Location::from(path);
    let render = || {
        let chat = ChatArguments::parse(chat_json)?;
        let shards = source::open_conversations(std::slice::from_ref(&location), &chat.source()?)?;
        let renderer = chat.renderer(tokenizer.inner().clone())?;
        let (pool, mut found) = (Pool::new(), Vec::new());
        for (row_group, num_rows) in shards[0].row_counts().into_iter().enumerate() {
            let mut reader = shards[0].documents(row_group, 0..num_rows, &pool)?;
            while let Some((first_row, batch)) = reader.next_batch()? {
                for (index, conversation) in batch.iter().enumerate() {
                    if found.len() == count {
                        return Ok(found);
                    }
                    let place = Place::row(location.path(), row_group, first_row + index as u64);
                    let tokens =
                        tokenizer.with_encoder(|encoder, _| renderer.render(encoder, conversation, false));
                    found.push(tokens.map_err(|error| refused(error, place))?);
                }
            }
        }
        Ok(found)
    };
    let found: Vec<Vec<u32>> = py.detach(render).map_err(to_py)?;
    Ok(found.iter().map(|tokens| rendered(py, tokens)).collect())
}

/// Conversations in a file.
#[pyfunction]
fn count_rows(py: Python<'_>, path: Named<'_>, chat_json: &str) -> PyResult<u64> {
    let location = Location::from(path);
    let count = || {
        let shards = source::open_conversations(&[location], &ChatArguments::parse(chat_json)?.source()?)?;
        Ok(shards.iter().flat_map(source::Shard::row_counts).sum())
    };
    py.detach(count).map_err(to_py)
}

/// The files of conversations that a file, folder, glob or URL names, in the order in which the loader reads them.
#[pyfunction]
#[pyo3(signature = (path, remote_json = None))]
fn find_conversations(py: Python<'_>, path: PathBuf, remote_json: Option<&str>) -> PyResult<Vec<PyLocation>> {
    let found = interruptible(py, || remote::storage(remote_json)?.find_conversations(&[path]))?;
    Ok(found.into_iter().map(PyLocation::from).collect())
}

/// The tokenizer with further special tokens behind its last id.
#[pyfunction]
fn with_special_tokens(
    py: Python<'_>,
    tokenizer: &PyTokenizer,
    contents: Vec<String>,
) -> PyResult<PyTokenizer> {
    py.detach(|| tokenizer.inner().with_special_tokens(&contents)).map(PyTokenizer::from).map_err(to_py)
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(render, module)?)?;
    module.add_function(wrap_pyfunction!(render_rows, module)?)?;
    module.add_function(wrap_pyfunction!(count_rows, module)?)?;
    module.add_function(wrap_pyfunction!(find_conversations, module)?)?;
    module.add_function(wrap_pyfunction!(with_special_tokens, module)?)
}
