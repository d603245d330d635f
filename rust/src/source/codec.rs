//! Decompression of one page into exactly as many bytes as its header declares, never more.
//!
//! The limit is why the codecs' crates are called here: a page of a few kilobytes may hold gigabytes.

use std::cell::Cell;
use std::io::Read;

use parquet::basic::Compression;

use super::Decoded;

thread_local! {
    /// Kept from page to page: its tables take 100 KiB. One that panics does not come back.
    static ZSTD: Cell<Option<zstd::bulk::Decompressor<'static>>> = const { Cell::new(None) };
}

/// Decompresses the pages of one column chunk.
#[derive(Debug)]
pub(super) struct Decompressor {
    codec: Compression,
}

impl Decompressor {
    pub(super) fn new(codec: Compression) -> Self {
        Self { codec }
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.codec != Compression::UNCOMPRESSED
    }

    /// Appends the `size` bytes that `input` decompresses to.
    pub(super) fn decompress(&self, input: &[u8], size: usize, output: &mut Vec<u8>) -> Decoded<()> {
        if let Some(most) = self.most_bytes(input.len()).filter(|&most| size > most) {
            return Err(format!("a page of {size} bytes in {} that hold {most} at most", input.len()));
        }
        let start = output.len();
        output
            .try_reserve_exact(size)
            .map_err(|source| format!("no memory for a page of {size} bytes: {source}"))?;
        match self.codec {
            // Writers leave the values of a page without any out altogether.
            _ if size == 0 && input.is_empty() => {}
            Compression::UNCOMPRESSED => output.extend_from_slice(input),
            Compression::ZSTD(_) => zstd_frame(input, size, output)?,
            Compression::SNAPPY => {
                let found = snap::raw::decompress_len(input).map_err(reason)?;
                if found != size {
                    return Err(wrong_size(size, found));
                }
                output.resize(start + size, 0);
                snap::raw::Decoder::new().decompress(input, &mut output[start..]).map_err(reason)?;
            }
            Compression::GZIP(_) => read(flate2::bufread::MultiGzDecoder::new(input), size, output)?,
            Compression::BROTLI(_) => {
                read(brotli_decompressor::Decompressor::new(input, BROTLI_BUFFER_BYTES), size, output)?
            }
            Compression::LZ4_RAW => lz4_block(input, size, output)?,
            Compression::LZ4 => lz4(input, size, output)?,
            Compression::LZO => return Err("pages compressed with LZO, which is not supported".into()),
        }
        match output.len() - start {
            found if found == size => Ok(()),
            found => Err(wrong_size(size, found)),
        }
    }

    /// What so many bytes can be decompressed to where memory is written before the decoder finds out. Snappy's longest
    /// copy makes 64 bytes of 3; LZ4's lengths grow by 255 a byte.
    fn most_bytes(&self, num_bytes: usize) -> Option<usize> {
        match self.codec {
            Compression::SNAPPY => Some(num_bytes.saturating_mul(22)),
            Compression::LZ4 | Compression::LZ4_RAW => Some(num_bytes.saturating_mul(255)),
            _ => None,
        }
    }
}

/// Input buffer of the brotli decoder: its own default.
const BROTLI_BUFFER_BYTES: usize = 4096;

fn reason(source: impl std::fmt::Display) -> String {
    format!("a page that does not decompress: {source}")
}

fn wrong_size(expected: usize, found: usize) -> String {
    format!("a page that decompresses to {found} bytes instead of {expected}")
}

/// Reads one byte more than there should be at most, so that a longer stream shows.
fn read(stream: impl Read, size: usize, output: &mut Vec<u8>) -> Decoded<()> {
    let start = output.len();
    stream.take(size as u64 + 1).read_to_end(output).map_err(reason)?;
    match output.len() - start {
        found if found > size => Err(format!("a page that decompresses to more than its {size} bytes")),
        _ => Ok(()),
    }
}

fn lz4_block(input: &[u8], size: usize, output: &mut Vec<u8>) -> Decoded<()> {
    let start = output.len();
    output.resize(start + size, 0);
    let found = lz4_flex::block::decompress_into(input, &mut output[start..]).map_err(reason)?;
    output.truncate(start + found);
    Ok(())
}

fn zstd_frame(input: &[u8], size: usize, output: &mut Vec<u8>) -> Decoded<()> {
    let mut decompressor = match ZSTD.take() {
        Some(decompressor) => decompressor,
        None => zstd::bulk::Decompressor::new().map_err(reason)?,
    };
    // The decoder writes from a cursor's position on, up to the capacity.
    let start = output.len();
    let mut page = std::io::Cursor::new(&mut *output);
    page.set_position(start as u64);
    let found = decompressor.decompress_to_buffer(input, &mut page);
    ZSTD.set(Some(decompressor));
    let found = found.map_err(reason)?;
    if found == size { Ok(()) } else { Err(wrong_size(size, found)) }
}

/// The deprecated codec `LZ4` means three things: Hadoop's framed blocks, the LZ4 frame format, or a bare block.
/// Tried in that order, as parquet-cpp does.
fn lz4(input: &[u8], size: usize, output: &mut Vec<u8>) -> Decoded<()> {
    let start = output.len();
    let frame = |output: &mut Vec<u8>| read(lz4_flex::frame::FrameDecoder::new(input), size, output);
    let is_whole = |output: &Vec<u8>| output.len() - start == size;
    if lz4_hadoop(input, size, output).is_ok() && is_whole(output) {
        return Ok(());
    }
    output.truncate(start);
    if frame(output).is_ok() && is_whole(output) {
        return Ok(());
    }
    output.truncate(start);
    lz4_block(input, size, output)
}

/// Blocks, each behind its decompressed and its compressed size (4 bytes each, big-endian).
fn lz4_hadoop(mut input: &[u8], size: usize, output: &mut Vec<u8>) -> Decoded<()> {
    let mut left = size;
    while let Some((sizes, rest)) = input.split_first_chunk::<8>() {
        let [a, b, c, d, e, f, g, h] = *sizes;
        let (expected, length) =
            (u32::from_be_bytes([a, b, c, d]) as usize, u32::from_be_bytes([e, f, g, h]) as usize);
        if expected > left || length > rest.len() {
            return Err("an LZ4 block that is longer than its page".into());
        }
        let (block, rest) = rest.split_at(length);
        let before = output.len();
        lz4_block(block, expected, output)?;
        if output.len() - before != expected {
            return Err(wrong_size(expected, output.len() - before));
        }
        (input, left) = (rest, left - expected);
    }
    if input.is_empty() { Ok(()) } else { Err("bytes behind the last LZ4 block".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_the_bytes_cannot_have_is_refused_before_memory_is_taken() {
        let mut snappy = vec![0xff, 0xff, 0xff, 0xff, 0x07]; // 2^31 - 1 as a varint, as in the header
        snappy.extend([0; 100]);
        for codec in [Compression::SNAPPY, Compression::LZ4_RAW, Compression::LZ4] {
            let mut output = Vec::new();
            let refused = Decompressor::new(codec).decompress(&snappy, i32::MAX as usize, &mut output);
            assert!(refused.unwrap_err().contains("that hold"), "{codec:?}");
            assert_eq!(output.capacity(), 0);
        }
    }

    #[test]
    fn what_compresses_best_is_still_read() {
        let text = vec![b'x'; 1 << 20];
        let snappy = snap::raw::Encoder::new().compress_vec(&text).unwrap();
        let lz4 = lz4_flex::block::compress(&text);
        for (codec, bytes) in [(Compression::SNAPPY, snappy), (Compression::LZ4_RAW, lz4)] {
            let mut output = Vec::new();
            Decompressor::new(codec).decompress(&bytes, text.len(), &mut output).unwrap();
            assert!(output == text, "{codec:?}");
        }
    }
}
