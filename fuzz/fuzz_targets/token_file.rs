//! Any bytes as a token file of each format and width: an error, or ids that can all be read.
//!
//! Input: the file.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use nanofast::token_file::{Format, TokenFiles, Width};

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::Builder::new().suffix(".bin").tempfile().expect("a temporary file");
    file.write_all(bytes).expect("space for it");
    let paths = [file.path().to_path_buf()];
    for format in [None, Some(Format::Flat), Some(Format::LlmC), Some(Format::Npy)] {
        for width in [None, Some(Width::U16), Some(Width::U32)] {
            let Ok(files) = TokenFiles::open(&paths, format, width) else { continue };
            let num_tokens = files.layout(0).num_tokens;
            assert!(num_tokens <= bytes.len() as u64, "more ids than bytes");
            let mut out = vec![0; num_tokens as usize];
            // Ids that are too large are refused when they are read.
            let _ = files.read(0, 0, &mut out, 1 << 31, &mut Vec::new());
            files.fingerprint(0).expect("a file that is there");
        }
    }
});
