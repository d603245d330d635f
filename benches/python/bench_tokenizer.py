"""How fast is each tokenizer, beside the ones that people use, on the same text with the same vocabulary?

    pytest benches/python/bench_tokenizer.py -s          (or: python benches/python/bench_tokenizer.py [corpus] [bytes])

Every peer runs in a process of its own: its first pass is cold (tokenizer loaded, caches empty), the best of the later
ones is warm. Token counts must agree (ids are held equal by the tests). Figures are MB of text a second of CPU time, so
that neighbours on the machine disturb them less; one thread each. Every peer takes a list of strings; Hugging Face
tokenizers and tiktoken give Python objects, which is part of their price here, nanofast and gigatoken arrays.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[3] / "shared" / "data"
PEERS = ["nanofast", "gigatoken", "tokenizers", "tiktoken"]
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


def texts(corpus: str, limit_bytes: int) -> list[str]:
    import pyarrow.parquet as parquet

    found: list[str] = []
    total = 0
    for file in sorted((DATA / "corpus" / corpus).glob("*.parquet")):
        for text in parquet.read_table(file, columns=["text"])["text"].to_pylist():
            total += len(text.encode())
            if total > limit_bytes:
                return found
            found.append(text)
    return found


def tiktoken_encoding() -> Any:
    import tiktoken
    import zstandard

    packed = (DATA / "tokenizers" / "r50k_base.tiktoken.zst").read_bytes()
    lines = zstandard.ZstdDecompressor().decompressobj().decompress(packed).splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    return tiktoken.Encoding(
        "r50k_base", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}
    )


def encoder(peer: str, folder: Path) -> tuple[str, Callable[[list[str]], int]]:
    """Return the peer's version, and a function that encodes all texts and returns how many tokens they have."""
    if peer == "nanofast":
        import nanofast

        ours = nanofast.Tokenizer.from_name("r50k_base")
        ours.encode("")
        return nanofast.__version__, lambda batch: len(ours.encode_batch(batch)[0])
    if peer == "gigatoken":
        from importlib.metadata import version

        import awkward
        import gigatoken

        giga = gigatoken.Tokenizer(str(folder / "tokenizer.json"))
        return version("gigatoken"), lambda batch: int(
            awkward.sum(awkward.num(giga.encode_batch(batch, parallel=False)))
        )
    if peer == "tokenizers":
        import tokenizers

        hugging = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        return tokenizers.__version__, lambda batch: sum(map(len, hugging.encode_batch_fast(batch)))
    import tiktoken

    encoding = tiktoken_encoding()
    return tiktoken.__version__, lambda batch: sum(len(encoding.encode_ordinary(text)) for text in batch)


def measure(peer: str, corpus: str, limit_bytes: int, folder: Path) -> dict[str, Any]:
    batch = texts(corpus, limit_bytes)
    num_bytes = sum(len(text.encode()) for text in batch)
    version, encode = encoder(peer, folder)
    speeds, count = [], 0
    for _ in range(2 if peer == "tiktoken" else 4):
        start = time.process_time()
        count = encode(batch)
        speeds.append(num_bytes / 1e6 / (time.process_time() - start))
    return {"peer": peer, "version": version, "tokens": count, "cold": speeds[0], "warm": max(speeds[1:])}


def main(corpus: str = "web_en", limit_bytes: int = 20_000_000) -> None:
    import tempfile

    import nanofast

    with tempfile.TemporaryDirectory() as folder:
        nanofast.Tokenizer.from_name("r50k_base").save(Path(folder) / "tokenizer.json", format="huggingface")
        rows = []
        for peer in PEERS:
            command = [sys.executable, __file__, "--peer", peer, corpus, str(limit_bytes), folder]
            environment = {**os.environ, "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                print(f"{peer}: not measured ({done.stderr.strip().splitlines()[-1]})")
                continue
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    assert len({row["tokens"] for row in rows}) == 1, f"token counts differ: {rows}"
    print(f"{corpus}, r50k_base, one thread, MB a second of CPU time")
    for row in rows:
        print(f"{row['peer']:>12} {row['version']:<10} cold {row['cold']:7.1f}  warm {row['warm']:7.1f}")


def test_tokenizers_side_by_side() -> None:
    import pytest

    if not DATA.is_dir():
        pytest.skip(f"no corpora in {DATA}")
    main(limit_bytes=5_000_000)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        peer, corpus, limit, folder = sys.argv[2:]
        print(json.dumps(measure(peer, corpus, int(limit), Path(folder))))
    else:
        main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
