//! A footer, looked through before the parquet crate reads it. The elements of its schema say how many children they have, and
//! the crate makes room for as many, and calls itself for each level; in what follows, lists say how long they are.
//!
//! ```text
//! schema  [root 2][messages 1][list 1][text 0][id 0]      children of all: one less than there are elements
//! ```
//! The crate goes by a field's number and does not look at its type. So a type that is not the field's is refused: else the
//! two would read different things in the same bytes.

use super::Decoded;
use super::thrift::{Compact, Kind};

/// Levels of a schema; data has a handful.
const MAX_LEVELS: usize = 200;

const BYTE: Kind = Kind::Other(3);
const BYTES: Kind = Kind::Other(8);

/// The fields of `SchemaElement`, by number.
const ELEMENT: &[(i64, Kind)] = &[
    (1, Kind::Integer),
    (2, Kind::Integer),
    (3, Kind::Integer),
    (4, BYTES),
    (NUM_CHILDREN, Kind::Integer),
    (6, Kind::Integer),
    (7, Kind::Integer),
    (8, Kind::Integer),
    (9, Kind::Integer),
    (LOGICAL_TYPE, Kind::Struct),
];
const NUM_CHILDREN: i64 = 5;
const LOGICAL_TYPE: i64 = 10;

/// Those logical types that have fields, and these; a truth value's type is its value.
const LOGICAL: &[(i64, &[(i64, Kind)])] = &[
    (5, &[(1, Kind::Integer), (2, Kind::Integer)]),
    (7, &[(1, Kind::Bool(true)), (2, Kind::Struct)]),
    (8, &[(1, Kind::Bool(true)), (2, Kind::Struct)]),
    (10, &[(1, BYTE), (2, Kind::Bool(true))]),
    (16, &[(1, BYTE)]),
    (17, &[(1, BYTES)]),
    (18, &[(1, BYTES), (2, Kind::Integer)]),
];

/// What a field behind the schema holds.
#[derive(Clone, Copy)]
enum Shape {
    One(Kind),
    Struct(Fields),
    List(&'static Shape),
}

/// The fields of a structure that the crate reads, from number 1 on; others it passes over by their type.
type Fields = &'static [Shape];

const NUMBER: Shape = Shape::One(Kind::Integer);
const TEXT: Shape = Shape::One(BYTES);
const TRUTH: Shape = Shape::One(Kind::Bool(true));
const ANY: Shape = Shape::Struct(&[]);

/// The first two stand before: the version, and the schema, which the crate passes over here.
const FOOTER: Fields = &[
    NUMBER,
    Shape::List(&ANY),
    NUMBER,
    Shape::List(&Shape::Struct(ROW_GROUP)),
    Shape::List(&Shape::Struct(KEY_VALUE)),
    TEXT,
    Shape::List(&ANY),
    ANY,
    TEXT,
];
const ROW_GROUP: Fields = &[
    Shape::List(&Shape::Struct(COLUMN_CHUNK)),
    NUMBER,
    NUMBER,
    Shape::List(&Shape::Struct(&[NUMBER, TRUTH, TRUTH])),
    NUMBER,
    NUMBER,
    NUMBER,
];
const COLUMN_CHUNK: Fields =
    &[TEXT, NUMBER, Shape::Struct(COLUMN_METADATA), NUMBER, NUMBER, NUMBER, NUMBER, ANY, TEXT];
const COLUMN_METADATA: Fields = &[
    NUMBER,
    Shape::List(&NUMBER),
    Shape::List(&TEXT),
    NUMBER,
    NUMBER,
    NUMBER,
    NUMBER,
    Shape::List(&Shape::Struct(KEY_VALUE)),
    NUMBER,
    NUMBER,
    NUMBER,
    Shape::Struct(STATISTICS),
    Shape::List(&ANY),
    NUMBER,
    NUMBER,
    ANY,
    ANY,
];
const STATISTICS: Fields = &[TEXT, TEXT, NUMBER, NUMBER, TEXT, TEXT, TRUTH, TRUTH];
const KEY_VALUE: Fields = &[TEXT, TEXT];

/// Looks through what follows the schema, which ends at `schema_end`. The crate passes over a list of truth values without
/// reading any, so that six bytes that claim two thousand million of them keep it busy for seconds, and as many more as a
/// footer has room for: there is no such list in one.
///
/// # Errors
/// A list of truth values, or a field that is not of its type.
pub(super) fn check_behind(footer: &[u8], schema_end: usize) -> Decoded<()> {
    let mut bytes = Compact::new(&footer[schema_end..]);
    let mut last = 2; // the schema's number
    check_fields(&mut bytes, FOOTER, &mut last)
}

fn check_fields(bytes: &mut Compact<'_>, fields: Fields, last: &mut i64) -> Decoded<()> {
    while let Some(kind) = bytes.field(last)? {
        match (fields.get((*last as usize).wrapping_sub(1)), kind) {
            (None, _) => bytes.skip(kind)?,
            (Some(Shape::One(expected)), _) if is_same(*expected, kind) => bytes.skip(kind)?,
            (Some(Shape::Struct(fields)), Kind::Struct) => check_fields(bytes, fields, &mut 0)?,
            (Some(Shape::List(element)), Kind::List) => check_list(bytes, element)?,
            _ => return Err(format!("field {last} of type {kind:?}")),
        }
    }
    Ok(())
}

fn check_list(bytes: &mut Compact<'_>, element: &Shape) -> Decoded<()> {
    let (kind, length) = bytes.list()?;
    for _ in 0..length {
        match element {
            Shape::Struct(fields) if kind == Kind::Struct => check_fields(bytes, fields, &mut 0)?,
            Shape::One(expected) if *expected == kind => bytes.skip(kind)?,
            _ => return Err(format!("a list of elements of type {kind:?}")),
        }
    }
    Ok(())
}

fn is_same(expected: Kind, found: Kind) -> bool {
    expected == found || matches!((expected, found), (Kind::Bool(_), Kind::Bool(_)))
}

/// Where the schema ends in a footer, in bytes. Nothing but the version stands before it.
///
/// # Errors
/// A schema that claims more children than it has elements, is nested too deeply, or is not of the types that it should be.
pub(super) fn schema_end(footer: &[u8]) -> Decoded<usize> {
    let (mut bytes, mut last) = (Compact::new(footer), 0);
    while let Some(kind) = bytes.field(&mut last)? {
        match (last, kind) {
            (1, Kind::Integer) => bytes.skip(kind)?,
            (2, Kind::List) => {
                check_elements(&mut bytes)?;
                return Ok(bytes.position());
            }
            _ => return Err(format!("field {last} of type {kind:?} where the schema should be")),
        }
    }
    Err("no schema".into())
}

fn check_elements(bytes: &mut Compact<'_>) -> Decoded<()> {
    let (kind, num_elements) = bytes.list()?;
    if kind != Kind::Struct {
        return Err(format!("a schema of elements of type {kind:?}"));
    }
    let mut num_claimed = 0_u64;
    // Of each element that is being filled, the children that are still to come.
    let mut open: Vec<u64> = Vec::new();
    for _ in 0..num_elements {
        while open.pop_if(|left| *left == 0).is_some() {}
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        let children = num_children(bytes)?;
        num_claimed = num_claimed.saturating_add(children);
        if num_claimed >= num_elements.max(1) {
            return Err(format!("a schema of {num_elements} elements that claims {num_claimed} children"));
        }
        open.push(children);
        if open.len() > MAX_LEVELS {
            return Err(format!("a schema of more than {MAX_LEVELS} levels"));
        }
    }
    Ok(())
}

fn num_children(bytes: &mut Compact<'_>) -> Decoded<u64> {
    let (mut last, mut found) = (0, 0);
    while let Some(kind) = bytes.field(&mut last)? {
        check_kind(ELEMENT, last, kind)?;
        match last {
            NUM_CHILDREN => {
                let children = bytes.integer()?;
                found = u64::try_from(children)
                    .map_err(|_| format!("a schema element of {children} children"))?;
            }
            LOGICAL_TYPE => check_logical_type(bytes)?,
            _ => bytes.skip(kind)?,
        }
    }
    Ok(found)
}

fn check_logical_type(bytes: &mut Compact<'_>) -> Decoded<()> {
    let mut which = 0;
    while let Some(kind) = bytes.field(&mut which)? {
        check_choice(kind)?;
        let fields =
            LOGICAL.iter().find(|(number, _)| *number == which).map_or(&[][..], |(_, fields)| fields);
        let mut last = 0;
        while let Some(kind) = bytes.field(&mut last)? {
            check_kind(fields, last, kind)?;
            match kind {
                // A unit of time: a choice of nothing but names.
                Kind::Struct => {
                    let mut unit = 0;
                    while let Some(kind) = bytes.field(&mut unit)? {
                        check_choice(kind)?;
                        bytes.skip(kind)?;
                    }
                }
                _ => bytes.skip(kind)?,
            }
        }
    }
    Ok(())
}

/// What is chosen among logical types and units of time is a structure, be it without fields.
fn check_choice(kind: Kind) -> Decoded<()> {
    match kind {
        Kind::Struct => Ok(()),
        _ => Err(format!("a logical type of type {kind:?}")),
    }
}

fn check_kind(fields: &[(i64, Kind)], number: i64, kind: Kind) -> Decoded<()> {
    let expected = fields.iter().find(|(field, _)| *field == number).map(|&(_, kind)| kind);
    match expected {
        Some(expected) if !is_same(expected, kind) => {
            Err(format!("field {number} of the schema is of type {kind:?}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A footer of nothing but a schema whose elements have so many children.
    fn footer(children: &[u32]) -> Vec<u8> {
        let mut bytes = vec![2 << 4 | 9, 15 << 4 | 12];
        push_varint(&mut bytes, children.len() as u32);
        for &count in children {
            bytes.push(5 << 4 | 5);
            push_varint(&mut bytes, count << 1);
            bytes.push(0);
        }
        bytes.push(0);
        bytes
    }

    fn push_varint(bytes: &mut Vec<u8>, mut value: u32) {
        while value >= 128 {
            bytes.push(value as u8 | 128);
            value >>= 7;
        }
        bytes.push(value as u8);
    }

    #[test]
    fn schemas_that_add_up_pass() {
        for children in [&[0][..], &[2, 1, 1, 0, 0], &[3, 0, 0, 0], &[1, 1, 1, 0]] {
            assert_eq!(schema_end(&footer(children)), Ok(footer(children).len() - 1), "{children:?}");
        }
        let deep = [vec![1; MAX_LEVELS - 1], vec![0]].concat();
        assert!(schema_end(&footer(&deep)).is_ok());
    }

    #[test]
    fn bombs_are_refused() {
        let claims = schema_end(&footer(&[1, 0x4000_0000, 0])).unwrap_err();
        assert!(claims.contains("claims 1073741825 children"), "{claims}");
        let deep = [vec![1; 100_000], vec![0]].concat();
        let levels = schema_end(&footer(&deep)).unwrap_err();
        assert!(levels.contains("more than 200 levels"), "{levels}");
    }

    #[test]
    fn lists_of_truth_values_and_other_types_are_refused_behind_the_schema() {
        let behind = |rest: &[u8]| {
            let mut bytes = footer(&[0]);
            let end = schema_end(&bytes).unwrap();
            bytes.splice(end.., rest.iter().copied());
            check_behind(&bytes, end)
        };
        assert_eq!(behind(&[0x16, 0, 0x19, 0x0c, 0]), Ok(()), "no rows, no row groups");
        assert_eq!(behind(&[0x16, 0, 0x19, 0x1c, 0, 0]), Ok(()), "a row group of nothing");
        // An unknown field of two thousand million truth values.
        let busy = behind(&[0xe9, 0xf1, 0xff, 0xff, 0xff, 0xff, 7, 0]).unwrap_err();
        assert!(busy.contains("list of truth values"), "{busy}");
        assert!(behind(&[0x15 + 0x10, 0]).unwrap_err().contains("field 4"), "row groups that are a number");
        assert!(behind(&[0x29, 0x15, 2, 0]).unwrap_err().contains("elements of type Integer"));
    }

    #[test]
    fn a_type_that_is_not_the_fields_is_refused() {
        // As the last field but one of the root: its repetition, but as a truth value, whose byte the crate would take from
        // what follows.
        let mut bytes = footer(&[0]);
        let position = bytes.len() - 2;
        bytes.splice(position..position, [3 << 4 | 1]);
        bytes[position] = 1 << 4 | 2;
        let wrong = schema_end(&bytes).unwrap_err();
        assert!(wrong.contains("field 6 of the schema is of type Bool(false)"), "{wrong}");
        assert!(schema_end(&[0]).unwrap_err().contains("no schema"));
        assert!(
            schema_end(&[4 << 4 | 9, 12, 0]).unwrap_err().contains("field 4"),
            "row groups before the schema"
        );
    }
}
