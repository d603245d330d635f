//! What the parquet crate itself writes and reads.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, Encoding, LogicalType, Repetition, Type as Physical};
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

/// How a file is laid out; without an encoding, by dictionary.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) codec: Compression,
    pub(crate) encoding: Option<Encoding>,
    pub(crate) version_2: bool,
    pub(crate) nullable: bool,
    pub(crate) page_bytes: usize,
    pub(crate) group_rows: usize,
}

/// Writes `texts` as the column `text` beside a column of numbers; returns what a reader should find.
pub(crate) fn write(path: &Path, layout: &Layout, texts: &[Option<Vec<u8>>]) -> Vec<Vec<u8>> {
    let repetition = if layout.nullable { Repetition::OPTIONAL } else { Repetition::REQUIRED };
    let text = Type::primitive_type_builder("text", Physical::BYTE_ARRAY)
        .with_repetition(repetition)
        .with_converted_type(ConvertedType::UTF8)
        .build()
        .unwrap();
    let schema = Type::group_type_builder("root").with_fields(vec![Arc::new(text)]).build().unwrap();
    let mut properties = WriterProperties::builder()
        .set_compression(layout.codec)
        .set_writer_version(if layout.version_2 {
            WriterVersion::PARQUET_2_0
        } else {
            WriterVersion::PARQUET_1_0
        })
        .set_data_page_size_limit(layout.page_bytes)
        .set_dictionary_page_size_limit(layout.page_bytes * 4)
        .set_write_batch_size(4)
        .set_dictionary_enabled(layout.encoding.is_none());
    if let Some(encoding) = layout.encoding {
        properties = properties.set_encoding(encoding);
    }
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties.build())).unwrap();
    for texts in texts.chunks(layout.group_rows) {
        let kept = texts.iter().filter(|text| text.is_some() || !layout.nullable);
        let values: Vec<ByteArray> = kept.map(|text| text.clone().unwrap_or_default().into()).collect();
        let levels: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let levels = layout.nullable.then_some(&levels[..]);
        column.typed::<ByteArrayType>().write_batch(&values, levels, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
    texts.iter().map(|text| text.clone().unwrap_or_default()).collect()
}

/// A column's values, nulls as empty ones, or why they cannot be read.
pub(crate) type Values = Result<Vec<Vec<u8>>, String>;

/// Every flat byte-array column of a file.
pub(crate) fn column_values(path: &Path) -> Vec<(String, Values)> {
    let Ok(Ok(reader)) = catch_unwind(|| SerializedFileReader::new(File::open(path).unwrap())) else {
        return vec![];
    };
    let schema = reader.metadata().file_metadata().schema_descr_ptr();
    let mut columns = Vec::new();
    for (leaf, column) in schema.columns().iter().enumerate() {
        let is_text = matches!(column.converted_type(), ConvertedType::NONE | ConvertedType::UTF8)
            && matches!(column.logical_type_ref(), None | Some(LogicalType::String));
        if column.physical_type() == Physical::BYTE_ARRAY
            && is_text
            && column.path().parts().len() == 1
            && column.max_rep_level() == 0
        {
            let values = (0..reader.num_row_groups()).map(|group| {
                catch_unwind(AssertUnwindSafe(|| {
                    group_values(&*reader.get_row_group(group).unwrap(), leaf, column.max_def_level())
                }))
                .unwrap_or_else(|_| Err("panics".into()))
            });
            let values = values.collect::<Result<Vec<_>, _>>().map(|groups| groups.concat());
            columns.push((column.name().to_string(), values));
        }
    }
    columns
}

fn group_values(group: &dyn RowGroupReader, leaf: usize, max_level: i16) -> Values {
    let reader = group.get_column_reader(leaf).map_err(|error| error.to_string())?;
    let mut reader = get_typed_column_reader::<ByteArrayType>(reader);
    let num_rows = group.metadata().num_rows() as usize;
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    let read = reader.read_records(num_rows, Some(&mut levels), None, &mut values);
    let (rows, ..) = read.map_err(|error| error.to_string())?;
    if rows != num_rows {
        return Err(format!("{rows} of {num_rows} rows"));
    }
    let mut values = values.into_iter().map(|value| value.data().to_vec());
    match max_level {
        0 => Ok(values.collect()),
        _ => Ok(levels
            .iter()
            .map(|&level| if level == max_level { values.next().unwrap() } else { vec![] })
            .collect()),
    }
}
