#!/usr/bin/env bash
# Runs the Rust tests under a sanitizer: `scripts/sanitize.sh address|thread [cargo test arguments]`
# Needs a nightly toolchain; `thread` needs its sources too, since the standard library has to be built along with the
# tests, else its own locks look like races: `rustup toolchain install nightly --component rust-src`.
set -euo pipefail
cd "$(dirname "$0")/.."
sanitizer="${1:?say which: address or thread}"
shift
target="$(rustc -vV | sed -n 's/^host: //p')"
arguments=(--locked --target "$target" --target-dir "target/$sanitizer")
if [ "$sanitizer" = thread ]; then
    arguments+=(-Zbuild-std)
fi
# Tests of time and size would only measure the sanitizer.
export RUSTFLAGS="-Zsanitizer=$sanitizer" PROPTEST_CASES="${PROPTEST_CASES:-8}"
# Examples in the documentation are linked without the sanitizer's own library, so they are left out.
exec cargo +nightly test "${arguments[@]}" --lib --tests "$@"
