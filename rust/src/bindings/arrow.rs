//! Strings of other libraries (pyarrow, polars, nanoarrow …) through Arrow's C data interface, read where they are.
//!
//! The layouts are those of <https://arrow.apache.org/docs/format/CDataInterface.html>. What a producer promises by the
//! specification (buffers of the sizes that follow from lengths and offsets, no change while an array is held) cannot be
//! checked from outside; offsets, counts and pointers can, and are.

#![expect(unsafe_code, reason = "structures and buffers that another library owns")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use bytes::Bytes;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::ragged::DocumentBatch;

/// `struct ArrowSchema`
#[repr(C)]
struct Schema {
    format: *const c_char,
    name: *const c_char,
    metadata: *const c_char,
    flags: i64,
    num_children: i64,
    children: *mut *mut Schema,
    dictionary: *mut Schema,
    release: Option<unsafe extern "C" fn(*mut Schema)>,
    private: *mut c_void,
}

/// `struct ArrowArray`
#[repr(C)]
struct Array {
    length: i64,
    null_count: i64,
    offset: i64,
    num_buffers: i64,
    num_children: i64,
    buffers: *const *const c_void,
    children: *mut *mut Array,
    dictionary: *mut Array,
    release: Option<unsafe extern "C" fn(*mut Array)>,
    private: *mut c_void,
}

/// `struct ArrowArrayStream`
#[repr(C)]
struct Stream {
    schema: Option<unsafe extern "C" fn(*mut Stream, *mut Schema) -> c_int>,
    next: Option<unsafe extern "C" fn(*mut Stream, *mut Array) -> c_int>,
    last_error: Option<unsafe extern "C" fn(*mut Stream) -> *const c_char>,
    release: Option<unsafe extern "C" fn(*mut Stream)>,
    private: *mut c_void,
}

/// A structure of the interface, owned: released when dropped, unless it was never filled.
trait Released: Sized {
    /// All zero: what the specification calls released.
    fn empty() -> Self {
        // SAFETY: the structures hold pointers, optional functions and integers, for all of which zero is a value.
        unsafe { std::mem::zeroed() }
    }
    fn release(&mut self);
}

macro_rules! released {
    ($($structure:ident)*) => {$(
        impl Released for $structure {
            fn release(&mut self) {
                if let Some(release) = self.release {
                    // SAFETY: the structure was moved here from its producer and is released once: the callback clears it,
                    // and so does this.
                    unsafe { release(self) };
                    self.release = None;
                }
            }
        }
        impl Drop for $structure {
            fn drop(&mut self) {
                self.release();
            }
        }
    )*};
}

released!(Schema Array Stream);

// SAFETY: by the specification an array may be released by any thread; what it points to does not change.
unsafe impl Send for Array {}
// SAFETY: as above, and nothing here changes it.
unsafe impl Sync for Array {}

/// How an array holds its texts.
#[derive(Clone, Copy)]
enum Layout {
    Offsets32,
    Offsets64,
    Views,
}

/// One buffer of an array, which it keeps alive.
struct Buffer {
    start: *const u8,
    length: usize,
    _array: Arc<Array>,
}

// SAFETY: the memory belongs to an array, which is `Send` and `Sync`, and is only read.
unsafe impl Send for Buffer {}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start` is not null and `length` is what the array's offsets or its table of lengths say, which the
        // producer vouches for; the array lives as long as this.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

/// The texts of an object with `__arrow_c_array__` or `__arrow_c_stream__`; none where it has neither.
pub(super) fn documents(object: &Bound<'_, PyAny>) -> PyResult<Option<DocumentBatch>> {
    let mut batch = DocumentBatch::new();
    if object.hasattr("__arrow_c_array__")? {
        let (schema, array): (Bound<'_, PyCapsule>, Bound<'_, PyCapsule>) =
            object.call_method0("__arrow_c_array__")?.extract()?;
        let schema = taken::<Schema>(&schema, c"arrow_schema")?;
        let array = taken::<Array>(&array, c"arrow_array")?;
        add(layout(&schema)?, array, &mut batch)?;
    } else if object.hasattr("__arrow_c_stream__")? {
        let capsule = object.call_method0("__arrow_c_stream__")?.cast_into::<PyCapsule>()?;
        let mut stream = taken::<Stream>(&capsule, c"arrow_array_stream")?;
        let schema = asked(&mut stream, |stream| stream.schema)?;
        let layout = layout(&schema)?;
        loop {
            let array = asked(&mut stream, |stream| stream.next)?;
            if array.release.is_none() {
                break;
            }
            add(layout, array, &mut batch)?;
        }
    } else {
        return Ok(None);
    }
    Ok(Some(batch))
}

/// Takes a structure out of its capsule, which is left with a released one.
fn taken<T: Released>(capsule: &Bound<'_, PyCapsule>, name: &CStr) -> PyResult<T> {
    let pointer: NonNull<T> = capsule.pointer_checked(Some(name))?.cast();
    // SAFETY: a capsule of this name holds such a structure, which its consumer may move out.
    Ok(unsafe { ptr::replace(pointer.as_ptr(), T::empty()) })
}

type Question<T> = Option<unsafe extern "C" fn(*mut Stream, *mut T) -> c_int>;

/// What one of the stream's functions gives.
fn asked<T: Released>(stream: &mut Stream, question: impl Fn(&Stream) -> Question<T>) -> PyResult<T> {
    let question = question(stream).ok_or_else(|| PyValueError::new_err("the Arrow stream was released"))?;
    let mut answer = T::empty();
    // SAFETY: the stream is not released, and `answer` is a place for what it gives.
    let code = unsafe { question(stream, &mut answer) };
    if code == 0 {
        return Ok(answer);
    }
    let reason = stream.last_error.map(|last_error| {
        // SAFETY: the stream has just failed, so it may be asked; a text that is not null ends with a zero.
        unsafe {
            let text = last_error(stream);
            if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        }
    });
    Err(PyValueError::new_err(format!(
        "the Arrow stream failed (code {code}): {}",
        reason.unwrap_or_default()
    )))
}

fn layout(schema: &Schema) -> PyResult<Layout> {
    if schema.format.is_null() {
        return Err(PyValueError::new_err("the Arrow schema was released"));
    }
    // SAFETY: the schema is not released, so its format is a text that ends with a zero.
    let format = unsafe { CStr::from_ptr(schema.format) }.to_string_lossy().into_owned();
    match &*format {
        _ if !schema.dictionary.is_null() => {
            Err(PyTypeError::new_err("texts are dictionary-encoded; cast them to a plain string type"))
        }
        "u" | "z" => Ok(Layout::Offsets32),
        "U" | "Z" => Ok(Layout::Offsets64),
        "vu" | "vz" => Ok(Layout::Views),
        _ if format.starts_with("+s") => {
            Err(PyTypeError::new_err("texts are a table or struct; expected one column of it"))
        }
        _ => Err(PyTypeError::new_err(format!(
            "texts are an Arrow array of format `{format}`; expected strings (u, U, vu) or binary (z, Z, vz)"
        ))),
    }
}

fn malformed(what: &str) -> PyErr {
    PyValueError::new_err(format!("malformed Arrow array: {what}"))
}

fn add(layout: Layout, array: Array, batch: &mut DocumentBatch) -> PyResult<()> {
    let number = |value: i64| usize::try_from(value).map_err(|_| malformed("a negative length or offset"));
    let (length, offset) = (number(array.length)?, number(array.offset)?);
    let array = Arc::new(array);
    if length == 0 {
        return Ok(());
    }
    let end = offset.checked_add(length).ok_or_else(|| malformed("its length overflows"))?;
    let num_buffers = number(array.num_buffers)?;
    if array.buffers.is_null() || num_buffers < 3 {
        return Err(malformed("too few buffers"));
    }
    // SAFETY: `buffers` points to `num_buffers` pointers.
    let buffers = unsafe { std::slice::from_raw_parts(array.buffers, num_buffers) };
    if array.null_count != 0 && !buffers[0].is_null() {
        // SAFETY: the validity buffer has a bit for each of `end` values.
        let bits = unsafe { std::slice::from_raw_parts(buffers[0].cast::<u8>(), end.div_ceil(8)) };
        if let Some(null) = (offset..end).find(|&at| bits[at / 8] >> (at % 8) & 1 == 0) {
            let index = batch.len() + null - offset;
            return Err(PyValueError::new_err(format!(
                "texts[{index}] is null; expected a text, fill or drop it"
            )));
        }
    }
    let buffer = |start: *const c_void, length: usize| match start.is_null() {
        true if length > 0 => Err(malformed("a buffer is missing")),
        true => Ok(Bytes::new()),
        false => Ok(Bytes::from_owner(Buffer { start: start.cast(), length, _array: Arc::clone(&array) })),
    };
    match layout {
        Layout::Offsets32 => {
            let offsets = buffer(buffers[1], (end + 1) * 4)?;
            let at = |index: usize| i64::from(i32::from_le_bytes(word(&offsets, index)));
            spans((offset..=end).map(at), |length| buffer(buffers[2], length), batch)
        }
        Layout::Offsets64 => {
            let offsets = buffer(buffers[1], (end + 1) * 8)?;
            let at = |index: usize| i64::from_le_bytes(word(&offsets, index));
            spans((offset..=end).map(at), |length| buffer(buffers[2], length), batch)
        }
        Layout::Views => {
            let data = &buffers[2..num_buffers - 1];
            let lengths = buffer(buffers[num_buffers - 1], data.len() * 8)?;
            let length = |index: usize| number(i64::from_le_bytes(word(&lengths, index)));
            let data = (0..).zip(data).map(|(index, &start)| buffer(start, length(index)?));
            views(
                &buffer(buffers[1], end * 16)?.slice(offset * 16..),
                &data.collect::<PyResult<Vec<_>>>()?,
                batch,
            )
        }
    }
}

/// The `index`-th of little-endian words (the machines that nanofast runs on have no others).
fn word<const BYTES: usize>(bytes: &[u8], index: usize) -> [u8; BYTES] {
    bytes.as_chunks().0[index]
}

/// Texts one after the other: `bounds` are their borders in a buffer.
fn spans(
    bounds: impl Iterator<Item = i64> + Clone,
    buffer: impl Fn(usize) -> PyResult<Bytes>,
    batch: &mut DocumentBatch,
) -> PyResult<()> {
    let (first, last) = (bounds.clone().next().unwrap_or(0), bounds.clone().last().unwrap_or(0));
    let is_ordered = bounds.clone().zip(bounds.clone().skip(1)).all(|(start, end)| start <= end);
    if first < 0 || !is_ordered {
        return Err(malformed("its offsets go backwards"));
    }
    let bytes = buffer(last as usize)?;
    // A buffer of a batch has at most 4 GiB: one at least that long is handed over in parts.
    let (mut from, mut part) = (first as usize, None);
    for (start, end) in bounds.clone().zip(bounds.skip(1)) {
        let (start, end) = (start as usize, end as usize);
        if end - from > u32::MAX as usize {
            (from, part) = (start, None);
        }
        if end - from > u32::MAX as usize {
            return Err(PyValueError::new_err(format!("texts[{}] has 4 GiB or more", batch.len())));
        }
        let to = (from + u32::MAX as usize).min(bytes.len());
        let index = *part.get_or_insert_with(|| batch.add_buffer(bytes.slice(from..to)));
        batch.push(index, start - from, end - from);
    }
    Ok(())
}

/// Texts of 16 bytes each: short ones in place, longer ones in one of the data buffers.
fn views(views: &Bytes, data: &[Bytes], batch: &mut DocumentBatch) -> PyResult<()> {
    const INLINE: usize = 12;
    let is_small = |bytes: &Bytes| u32::try_from(bytes.len()).is_ok();
    if !is_small(views) || !data.iter().all(is_small) {
        return Err(PyValueError::new_err("an Arrow buffer of 4 GiB or more; pass the array in parts"));
    }
    let in_place = batch.add_buffer(views.clone());
    let buffers: Vec<u32> = data.iter().map(|bytes| batch.add_buffer(bytes.clone())).collect();
    for (index, view) in views.as_chunks::<16>().0.iter().enumerate() {
        let field = |at: usize| u32::from_le_bytes(word(view, at / 4)) as usize;
        let length = field(0);
        if length <= INLINE {
            batch.push(in_place, index * 16 + 4, index * 16 + 4 + length);
            continue;
        }
        let (buffer, start) = (field(8), field(12));
        if data.get(buffer).is_none_or(|bytes| start + length > bytes.len()) {
            return Err(malformed("a view lies outside of its buffer"));
        }
        batch.push(buffers[buffer], start, start + length);
    }
    Ok(())
}
