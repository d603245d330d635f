#!/usr/bin/env bash
# Runs the Rust tests as on 64-bit Arm, on any Linux machine: `scripts/test_aarch64.sh [cargo test arguments]`
# Needs `rustup target add aarch64-unknown-linux-gnu` and `apt-get install gcc-aarch64-linux-gnu qemu-user`. Time measured
# under emulation says nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
export PROPTEST_CASES="${PROPTEST_CASES:-16}"
# Examples in the documentation are the same everywhere, so they are left out.
[ $# -gt 0 ] || set -- --lib --tests
exec cargo test --locked --target aarch64-unknown-linux-gnu "$@"
