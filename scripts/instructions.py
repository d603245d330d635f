"""Do the hot loops take more instructions than before? `python scripts/instructions.py [--accept] [--shard FILE]`

Builds benches/rust/instructions.rs, runs each loop under valgrind's callgrind (which has no AVX-512, so what is counted
is the AVX2 path) with two numbers of repetitions, and takes the difference. Counts are compared with those of
benches/results/instructions.json for this target and compiler; more than 3 % above is a failure, `--accept` keeps them.
With `--shard` the first row group of a file is the text, and nothing is compared. Without valgrind it says so and ends.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benches" / "results" / "instructions.json"
LOOPS = ("decode", "encode_cold", "encode_warm", "pack_best_fit", "fill_slot_concat")
REPETITIONS = (1, 3)
MOST_GROWTH = 0.03


def build() -> str:
    """The path of the program."""
    command = ["cargo", "build", "--locked", "--release", "--bench", "instructions", "--message-format=json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return next(str(one["executable"]) for one in found if one.get("target", {}).get("name") == "instructions")


def counted(program: str, loop: str, repetitions: int, shard: list[str]) -> tuple[int, int]:
    """Instructions of a whole run, and the bytes of text of one repetition."""
    tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run([*tool, program, loop, str(repetitions), *shard], capture_output=True, text=True, check=False)
    total = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or total is None:
        raise SystemExit(f"{loop} failed under valgrind:\n{done.stderr}")
    return int(total[1]), int(done.stdout.split()[1])


def measure(program: str, shard: list[str]) -> dict[str, float]:
    """Instructions a byte of text, by loop."""
    found = {}
    few, many = REPETITIONS
    for loop in LOOPS:
        (less, num_bytes), (more, _) = (counted(program, loop, count, shard) for count in (few, many))
        found[loop] = round((more - less) / (many - few) / num_bytes, 4)
        print(f"{loop:18} {found[loop]:8.3f} instructions a byte of text", flush=True)
    return found


def compiler() -> str:
    """Target and compiler, which counts hold for."""
    lines = subprocess.run(["rustc", "-vV"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    facts = dict(line.split(": ", 1) for line in lines.splitlines() if ": " in line)
    return f"{facts['host']}, rustc {facts['release']}"


def main() -> int:
    """0: no loop grew, or nothing could be counted; 1: one did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accept", action="store_true", help="keep these counts")
    parser.add_argument("--shard", help="count on the first row group of this file, and compare nothing")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("skipped: valgrind is not installed (apt-get install valgrind)")
        return 0
    found = measure(build(), [arguments.shard] if arguments.shard else [])
    if arguments.shard:
        return 0
    key, kept = compiler(), json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}
    if arguments.accept:
        KEPT.write_text(json.dumps({**kept, key: found}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return 0
    if key not in kept:
        print(f"nothing to compare with: no counts of {key} in {KEPT.relative_to(ROOT)}; --accept keeps these")
        return 0
    grown = {
        loop: found[loop] / kept[key][loop] - 1 for loop in LOOPS if found[loop] > kept[key][loop] * (1 + MOST_GROWTH)
    }
    for loop, growth in grown.items():
        print(f"{loop} takes {growth:.1%} more instructions than {kept[key][loop]} a byte; --accept if that is right")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
