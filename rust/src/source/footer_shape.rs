//! A footer's schema, looked through before the parquet crate builds it: its elements say how many children they have, and the
//! crate makes room for as many, and calls itself for each level.
//!
//! ```text
//! schema  [root 2][messages 1][list 1][text 0][id 0]      children of all: one less than there are elements
//! ```

use super::Decoded;
use super::thrift::{Compact, Kind};

/// Levels of a schema; data has a handful.
const MAX_LEVELS: usize = 200;

/// The numbers of the two fields that matter, in `FileMetaData` and `SchemaElement`.
const SCHEMA: i64 = 2;
const NUM_CHILDREN: i64 = 5;

/// Refuses a schema that claims more children than it has elements, or that is nested too deeply.
pub(super) fn check_shape(footer: &[u8]) -> Decoded<()> {
    let (mut bytes, mut last) = (Compact::new(footer), 0);
    while let Some(kind) = bytes.field(&mut last)? {
        if last == SCHEMA && kind == Kind::List {
            check_elements(&mut bytes)?;
        } else {
            bytes.skip(kind)?;
        }
    }
    Ok(())
}

fn check_elements(bytes: &mut Compact<'_>) -> Decoded<()> {
    let num_elements = bytes.list_length()?;
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
        if last == NUM_CHILDREN && kind == Kind::Integer {
            let children = bytes.integer()?;
            found =
                u64::try_from(children).map_err(|_| format!("a schema element of {children} children"))?;
        } else {
            bytes.skip(kind)?;
        }
    }
    Ok(found)
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
            assert_eq!(check_shape(&footer(children)), Ok(()), "{children:?}");
        }
        let deep = [vec![1; MAX_LEVELS - 1], vec![0]].concat();
        assert_eq!(check_shape(&footer(&deep)), Ok(()));
    }

    #[test]
    fn bombs_are_refused() {
        let claims = check_shape(&footer(&[1, 0x4000_0000, 0])).unwrap_err();
        assert!(claims.contains("claims 1073741825 children"), "{claims}");
        let deep = [vec![1; 100_000], vec![0]].concat();
        let levels = check_shape(&footer(&deep)).unwrap_err();
        assert!(levels.contains("more than 200 levels"), "{levels}");
    }
}
