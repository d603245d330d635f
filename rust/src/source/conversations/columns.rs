//! Conversations of a parquet row group: the leaves of its messages read side by side, a row at a time.
//!
//! ```text
//! role      user assistant | user assistant           │ conversations
//! content   hi   hello     | 1+1? [text][python][..]  │ user: hi, assistant: hello | user: 1+1?, assistant: …
//! ```

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::schema::types::{SchemaDescriptor, Type};

use super::Rows;
use super::json::push_texts;
use super::layout::{ALPACA_COLUMNS, Layout, PART_KEYS};
use super::leaf::{Leaf, LeafReader};
use crate::conversation::{Field, push_field};
use crate::error::{Error, Place, Result};
use crate::pool::Pool;
use crate::ragged::DocumentBatch;
use crate::source::page::Stop;
use crate::source::schema::{describe, holds_text};

/// Which leaves of a file hold conversations.
#[derive(Clone, Debug)]
pub(super) enum Columns {
    /// A list of messages.
    Messages { role: Leaf, content: Content, message_level: u32 },
    /// An instruction and its answer, in the order of `ALPACA_COLUMNS`.
    Instruction([Option<Leaf>; 4]),
}

/// What is said in a message. A level is the definition level from which on something is there.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Text(Leaf),
    Parts { kind: Leaf, text: Leaf, list_level: u32, part_level: u32 },
}

/// A leaf on its way down from the file's root.
struct Walk<'a> {
    leaf: Leaf,
    /// The definition level of each node above it, by its name; a list's own level and then its elements'.
    nodes: Vec<(&'a Type, u32)>,
}

impl Walk<'_> {
    /// Levels from which on there are elements, one for each list that the leaf lies in.
    fn element_levels(&self) -> Vec<u32> {
        let repeated = self.nodes.iter().filter(|(node, _)| is_repeated(node));
        repeated.map(|(_, level)| *level).collect()
    }

    fn name(&self) -> &str {
        self.nodes.last().map_or("", |(node, _)| node.name())
    }

    /// The level from which on the last list around the leaf is there.
    fn list_level(&self) -> u32 {
        let at = self.nodes.iter().rposition(|(node, _)| is_repeated(node)).unwrap_or(0);
        at.checked_sub(1).map_or(0, |above| self.nodes[above].1)
    }
}

fn is_repeated(node: &Type) -> bool {
    let info = node.get_basic_info();
    info.has_repetition() && info.repetition() == parquet::basic::Repetition::REPEATED
}

impl Columns {
    /// The leaves that hold conversations of `layout`.
    ///
    /// # Errors
    /// A column that is missing, or holds no messages.
    pub(super) fn find(path: &Path, schema: &SchemaDescriptor, layout: &Layout) -> Result<Self> {
        let fields = schema.root_schema().get_fields();
        let Some(keys) = layout.keys() else { return Self::find_instruction(path, schema) };
        let name = &layout.column;
        let Some(root) = fields.iter().find(|field| field.name() == name) else {
            return Err(missing(path, schema, name));
        };
        let walks = walks(schema, name);
        let find = |name: &str, depth: usize| {
            let found = |walk: &&Walk<'_>| {
                let is_text =
                    walk.nodes.last().is_some_and(|(node, _)| node.is_primitive() && holds_text(node));
                is_text && walk.name() == name && walk.leaf.max_repetition as usize == depth
            };
            walks.iter().find(found)
        };
        let content = match (find(keys.content, 1), find(PART_KEYS[0], 2), find(PART_KEYS[1], 2)) {
            (Some(text), ..) => Some(Content::Text(text.leaf)),
            (None, Some(kind), Some(text)) => {
                let part_level = text.element_levels()[1];
                let list_level = text.list_level();
                Some(Content::Parts { kind: kind.leaf, text: text.leaf, list_level, part_level })
            }
            _ => None,
        };
        match (find(keys.role, 1), content) {
            (Some(role), Some(content)) => {
                Ok(Self::Messages { message_level: role.element_levels()[0], role: role.leaf, content })
            }
            _ => Err(Error::MessagesType {
                path: path.into(),
                column: name.clone(),
                found: describe(root),
                expected: format!("list<struct<{}, {}>>", keys.role, keys.content),
            }),
        }
    }

    fn find_instruction(path: &Path, schema: &SchemaDescriptor) -> Result<Self> {
        let mut leaves = [None; 4];
        for (leaf, name) in leaves.iter_mut().zip(ALPACA_COLUMNS) {
            let walk = walks(schema, name).into_iter().find(|walk| walk.nodes.len() == 1);
            let is_text = |walk: &Walk<'_>| walk.nodes.last().is_some_and(|(node, _)| holds_text(node));
            *leaf = walk.filter(is_text).map(|walk| walk.leaf);
        }
        for (leaf, name) in leaves.iter().zip(ALPACA_COLUMNS) {
            if leaf.is_none() && ["instruction", "output"].contains(&name) {
                return Err(missing(path, schema, name));
            }
        }
        Ok(Self::Instruction(leaves))
    }

    /// All leaves, in the order in which `ConversationReader` takes their readers.
    pub(super) fn leaves(&self) -> Vec<Leaf> {
        match self {
            Self::Messages { role, content: Content::Text(text), .. } => vec![*role, *text],
            Self::Messages { role, content: Content::Parts { kind, text, .. }, .. } => {
                vec![*role, *kind, *text]
            }
            Self::Instruction(leaves) => leaves.iter().flatten().copied().collect(),
        }
    }
}

fn missing(path: &Path, schema: &SchemaDescriptor, name: &str) -> Error {
    let fields = schema.root_schema().get_fields();
    let available = fields.iter().map(|field| field.name().to_string()).collect();
    Error::MissingColumn { path: path.into(), column: name.into(), available }
}

/// Every leaf below the top-level column `name`.
fn walks<'a>(schema: &'a SchemaDescriptor, name: &str) -> Vec<Walk<'a>> {
    let below = |&index: &usize| schema.get_column_root(index).name() == name;
    let walk = |index: usize| {
        let column = schema.column(index);
        let (mut node, mut level, mut nodes) = (schema.root_schema(), 0, Vec::new());
        for part in column.path().parts() {
            node = node.get_fields().iter().find(|field| field.name() == part)?;
            level += u32::from(node.is_optional() || is_repeated(node));
            nodes.push((node, level));
        }
        let (max_repetition, max_definition) = (column.max_rep_level() as u32, column.max_def_level() as u32);
        Some(Walk { leaf: Leaf { index, max_repetition, max_definition }, nodes })
    };
    (0..schema.num_columns()).filter(below).filter_map(walk).collect()
}

/// Reads the conversations of one row group from front to back.
#[derive(Debug)]
pub struct ConversationReader {
    path: PathBuf,
    row_group: usize,
    columns: Arc<Columns>,
    layout: Arc<Layout>,
    leaves: Vec<LeafReader>,
    row: u64,
    rows: Range<u64>,
    num_rows: u64,
    broken: Option<(Range<u64>, String)>,
    pool: Arc<Pool<u8>>,
}

impl ConversationReader {
    pub(super) fn new(
        path: PathBuf,
        row_group: usize,
        (columns, layout): (Arc<Columns>, Arc<Layout>),
        leaves: Vec<LeafReader>,
        rows: Range<u64>,
        num_rows: u64,
        pool: Arc<Pool<u8>>,
    ) -> Self {
        let rows = rows.start..rows.end.min(num_rows);
        Self { path, row_group, columns, layout, leaves, row: 0, rows, num_rows, broken: None, pool }
    }

    /// The next consecutive conversations and the row of the first; `None` behind the last row.
    ///
    /// # Errors
    /// Pages that cannot be decoded: what follows in the row group is lost, since rows cannot be told any more. A file
    /// that changed, memory that is refused, or a failure of the system.
    pub fn next_batch(&mut self) -> Result<Option<(u64, DocumentBatch)>> {
        let first_row = self.row.max(self.rows.start);
        let mut batch = Rows::pooled(&self.pool, Place::row(&self.path, self.row_group, first_row))?;
        while self.broken.is_none() && self.row < self.rows.end && !batch.is_enough() {
            let mark = batch.bytes.len();
            let read = catch_unwind(AssertUnwindSafe(|| self.read(&mut batch.bytes)));
            let read = read.unwrap_or_else(|_| Err(Stop::Broken("a page that a decoder panics on".into())));
            match read {
                Ok(()) if self.row >= self.rows.start => batch.end()?,
                Ok(()) => batch.bytes.truncate(mark),
                Err(Stop::Broken(reason)) => {
                    batch.bytes.truncate(mark);
                    self.broken = Some((self.row..self.num_rows, reason));
                    break;
                }
                Err(Stop::Failed(error)) => return Err(error),
            }
            self.row += 1;
        }
        if let Some(batch) = batch.finish() {
            return Ok(Some((first_row, batch)));
        }
        let Some((rows, reason)) = &self.broken else { return Ok(None) };
        let place = Place::row(&self.path, self.row_group, rows.start);
        let reason = format!("{reason} (rows {} to {} are lost)", rows.start, rows.end - 1);
        Err(Error::Parquet { place, reason })
    }

    /// Appends the conversation of the next row.
    fn read(&mut self, out: &mut Vec<u8>) -> std::result::Result<(), Stop> {
        let (roles, said) = match (&*self.columns, &mut self.leaves[..]) {
            (Columns::Instruction(leaves), readers) => return read_instruction(leaves, readers, out),
            (Columns::Messages { .. }, [roles, said @ ..]) => (roles, said),
            (Columns::Messages { .. }, []) => return Err(Stop::Broken("no leaves".into())),
        };
        let Columns::Messages { message_level, content, .. } = &*self.columns else { return Ok(()) };
        loop {
            let role = roles.next()?;
            let is_there = role.definition >= *message_level;
            if is_there {
                push_field(out, Field::Role, self.layout.role(role.value.unwrap_or_default()));
                if role.value.is_none() {
                    push_field(out, Field::Broken, b"its role is null");
                }
            }
            match (content, &mut *said) {
                (Content::Text(_), [texts]) => match texts.next()?.value {
                    Some(text) => push_field(out, Field::Text, text),
                    None if is_there => push_field(out, Field::Broken, b"its content is null"),
                    None => {}
                },
                (Content::Parts { list_level, part_level, .. }, [kinds, texts]) => {
                    read_parts(kinds, texts, is_there.then_some(*list_level), *part_level, out)?;
                }
                _ => return Err(Stop::Broken("a leaf too many".into())),
            }
            let more = roles.ahead()?.is_some_and(|level| level > 0);
            for leaf in said.iter_mut() {
                if leaf.ahead()?.is_some_and(|level| level > 0) != more {
                    return Err(Stop::Broken("columns of a message that differ in length".into()));
                }
            }
            if !more {
                return Ok(());
            }
        }
    }
}

/// Appends the parts of one message; `list_level` is none where there is no message.
fn read_parts(
    kinds: &mut LeafReader,
    texts: &mut LeafReader,
    list_level: Option<u32>,
    part_level: u32,
    out: &mut Vec<u8>,
) -> std::result::Result<(), Stop> {
    loop {
        let (kind, text) = (kinds.next()?, texts.next()?);
        match list_level {
            None => {}
            Some(level) if text.definition < level => push_field(out, Field::Broken, b"its content is null"),
            Some(_) if text.definition < part_level => {} // no parts
            Some(_) => match (kind.value, kind.value.and_then(Field::part), text.value) {
                (None, ..) => push_field(out, Field::Broken, b"the type of a part is null"),
                (Some(name), None, _) => push_field(out, Field::UnknownPart, name),
                (_, _, None) => push_field(out, Field::Broken, b"the text of a part is null"),
                (_, Some(field), Some(text)) => push_field(out, field, text),
            },
        }
        let more = kinds.ahead()? == Some(2);
        if (texts.ahead()? == Some(2)) != more {
            return Err(Stop::Broken("columns of a part that differ in length".into()));
        }
        if !more {
            return Ok(());
        }
    }
}

fn read_instruction(
    leaves: &[Option<Leaf>; 4],
    readers: &mut [LeafReader],
    out: &mut Vec<u8>,
) -> std::result::Result<(), Stop> {
    let mut texts = [None; 4];
    let found = texts.iter_mut().zip(leaves).filter(|(_, leaf)| leaf.is_some());
    for ((text, _), reader) in found.zip(readers) {
        *text = reader.next()?.value;
    }
    push_texts(out, texts);
    Ok(())
}
