//! Text → pretokens: the pieces that merging never crosses.
//!
//! ```text
//! RegexSplitter   any pattern, by its own expression            the reference
//! scalar          well-known patterns, character by character   twin of the next
//! windows         well-known patterns, 64 bytes at a time
//! ```

mod classes;
mod deepseek;
mod family;
mod isa;
#[cfg(any(target_arch = "aarch64", test))]
mod moves;
#[cfg(target_arch = "aarch64")]
mod neon;
mod regex;
mod scalar;
mod window;
mod windows;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use family::Family;
pub use regex::RegexSplitter;
pub use windows::Starts;

use isa::Portable;
#[cfg(target_arch = "aarch64")]
use neon::Neon;
#[cfg(target_arch = "x86_64")]
use x86::{Avx2, Avx512};

/// How a [`FamilySplitter`] works; all give the same pretokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implementation {
    /// Windows with AVX-512.
    Avx512,
    /// Windows with AVX2.
    Avx2,
    /// Windows with NEON.
    Neon,
    /// Windows in plain Rust.
    Portable,
    /// Character by character.
    Scalar,
}

/// Splits by a well-known pattern.
#[derive(Clone, Copy, Debug)]
pub struct FamilySplitter {
    family: Family,
    // Only ever one that the processor can run: `with` is the only constructor.
    implementation: Implementation,
}

impl Implementation {
    /// Those that this processor can run, the fastest first.
    pub fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(Avx512::is_available().then_some(Self::Avx512));
            all.extend(Avx2::is_available().then_some(Self::Avx2));
        }
        #[cfg(target_arch = "aarch64")]
        all.push(Self::Neon);
        all.extend([Self::Scalar, Self::Portable]);
        all
    }

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Portable => "portable",
            Self::Scalar => "scalar",
        }
    }
}

impl FamilySplitter {
    /// The fastest splitter of this processor.
    pub fn new(family: Family) -> Self {
        Self { family, implementation: Implementation::available()[0] }
    }

    /// A splitter of a chosen kind; none where the processor cannot run it.
    pub fn with(family: Family, implementation: Implementation) -> Option<Self> {
        Implementation::available().contains(&implementation).then_some(Self { family, implementation })
    }

    /// How it works.
    pub fn implementation(&self) -> Implementation {
        self.implementation
    }

    /// Appends to `starts` where the pretokens of `text[from..]` start, relative to `from`, until the text ends or `starts`
    /// is full. Returns where the first pretoken begins that is not in it, or the text's length.
    ///
    /// `from` is where a pretoken starts.
    #[expect(unsafe_code, reason = "vector instructions behind a check of the processor")]
    pub fn fill(&self, text: &str, from: usize, starts: &mut Starts<'_>) -> usize {
        let text = text.as_bytes();
        if self.family == Family::DeepSeek {
            return scalar::fill(self.family, text, from, starts);
        }
        match self.implementation {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the text is UTF-8, and `implementation` is one that the processor can run.
            Implementation::Avx512 => unsafe { x86::fill_avx512(self.family, text, from, starts) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Implementation::Avx2 => unsafe { x86::fill_avx2(self.family, text, from, starts) },
            #[cfg(not(target_arch = "x86_64"))]
            Implementation::Avx512 | Implementation::Avx2 => unreachable!("not available on this processor"),
            #[cfg(target_arch = "aarch64")]
            // SAFETY: the text is UTF-8, and NEON is part of the target.
            Implementation::Neon => unsafe {
                windows::fill_by_family::<Neon>(self.family, text, from, starts)
            },
            #[cfg(not(target_arch = "aarch64"))]
            Implementation::Neon => unreachable!("not available on this processor"),
            // SAFETY: the text is UTF-8, and plain Rust needs nothing of the processor.
            Implementation::Portable => unsafe { windows::fill::<Portable>(self.family, text, from, starts) },
            Implementation::Scalar => scalar::fill(self.family, text, from, starts),
        }
    }
}
