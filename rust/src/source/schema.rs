//! Which column of a file holds the text, and what a column holds when it does not.

use std::path::Path;

use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::schema::types::{SchemaDescriptor, Type};

use crate::error::{Error, Result};

/// The leaf index of the top-level column `name`, and whether its rows can be null.
pub(super) fn text_column(path: &Path, schema: &SchemaDescriptor, name: &str) -> Result<(usize, bool)> {
    let fields = schema.root_schema().get_fields();
    let names =
        |fields: &mut dyn Iterator<Item = &Type>| fields.map(|field| field.name().to_string()).collect();
    let Some(field) = fields.iter().find(|field| field.name() == name) else {
        let available = names(&mut fields.iter().map(AsRef::as_ref));
        return Err(Error::MissingColumn { path: path.into(), column: name.into(), available });
    };
    let leaf =
        (0..schema.num_columns()).find(|&leaf| std::ptr::eq(schema.get_column_root(leaf), field.as_ref()));
    match leaf {
        Some(leaf) if holds_text(field) => Ok((leaf, schema.column(leaf).max_def_level() == 0)),
        _ => Err(Error::ColumnType {
            path: path.into(),
            column: name.into(),
            found: describe(field),
            candidates: names(&mut fields.iter().map(AsRef::as_ref).filter(|field| holds_text(field))),
        }),
    }
}

/// Text is a byte array that is marked as string, JSON or enum, or not at all: many writers mark nothing, and whether
/// it is UTF-8 is found out when it is tokenized.
pub(super) fn holds_text(field: &Type) -> bool {
    if !field.is_primitive() || field.get_physical_type() != Physical::BYTE_ARRAY || is_repeated(field) {
        return false;
    }
    let info = field.get_basic_info();
    match info.logical_type_ref() {
        Some(logical) => matches!(logical, LogicalType::String | LogicalType::Json | LogicalType::Enum),
        None => matches!(
            info.converted_type(),
            ConvertedType::NONE | ConvertedType::UTF8 | ConvertedType::JSON | ConvertedType::ENUM
        ),
    }
}

fn is_repeated(field: &Type) -> bool {
    field.get_basic_info().has_repetition() && field.get_basic_info().repetition() == Repetition::REPEATED
}

/// A column's type in the words that its readers use.
pub(super) fn describe(field: &Type) -> String {
    let inner = if field.is_primitive() { primitive(field) } else { group(field) };
    if is_repeated(field) { format!("list<{inner}>") } else { inner }
}

fn group(field: &Type) -> String {
    let converted = field.get_basic_info().converted_type();
    let logical = field.get_basic_info().logical_type_ref();
    let fields = field.get_fields();
    if matches!(logical, Some(LogicalType::List)) || converted == ConvertedType::LIST {
        // list<element> is stored as a group of a repeated group of the element.
        let element = match fields.first().map(AsRef::as_ref) {
            Some(middle) if middle.is_group() && middle.get_fields().len() == 1 => {
                describe(&middle.get_fields()[0])
            }
            Some(middle) if middle.is_group() => group(middle),
            Some(element) => primitive(element),
            None => "nothing".into(),
        };
        return format!("list<{element}>");
    }
    let is_map = matches!(converted, ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE);
    if is_map || matches!(logical, Some(LogicalType::Map)) {
        return "map".into();
    }
    let names: Vec<&str> = fields.iter().map(|field| field.name()).collect();
    format!("struct<{}>", names.join(", "))
}

fn primitive(field: &Type) -> String {
    let info = field.get_basic_info();
    let logical = match (info.logical_type_ref(), info.converted_type()) {
        (Some(LogicalType::String), _) | (None, ConvertedType::UTF8) => return "string".into(),
        (Some(logical), _) => Some(format!("{logical:?}")),
        (None, ConvertedType::NONE) => None,
        (None, converted) => Some(format!("{converted}")),
    };
    let physical = match field.get_physical_type() {
        Physical::BOOLEAN => "bool",
        Physical::INT32 => "int32",
        Physical::INT64 => "int64",
        Physical::INT96 => "timestamp (int96)",
        Physical::FLOAT => "float",
        Physical::DOUBLE => "double",
        Physical::BYTE_ARRAY => "binary",
        Physical::FIXED_LEN_BYTE_ARRAY => "fixed-size binary",
    };
    // What the type means comes in front: its name up to the parameters.
    let name = logical.map(|logical| {
        logical.split(['(', ' ', '{']).next().unwrap_or_default().trim_start_matches('_').to_lowercase()
    });
    name.map_or(physical.into(), |name| format!("{name} ({physical})"))
}
