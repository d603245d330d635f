#!/usr/bin/env bash
# Runs the ring through every interleaving of two writers and a reader up to two preemptions (loom): `scripts/model_ring.sh`
# Needs nothing but cargo; takes minutes, most of them to build the crate once more with `--cfg loom`.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-2}"
exec cargo test --locked --lib --target-dir target/loom ring::model -- "$@"
