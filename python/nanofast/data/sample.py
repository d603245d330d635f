"""The sample corpus: what is trained on when no data is named. Made once from the Python installation that runs.

    NANOFAST_HOME/data/cpython-3.11.7-1d7b82b4/      manifest.json  shard_00000.parquet … shard_00006.parquet
    NANOFAST_HOME/tokenizers/cpython-3.11.7-1d7b82b4-4096/tokenizer.json

Shards look as people publish them: a `text` column, zstd, row groups of about 1,000 documents, and the last shard is
for validation. The same Python gives the same bytes. A folder gets its name only when everything in it is complete,
so that a run that was killed leaves nothing that a later one could take for whole.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from nanofast.chat_template import NANOCHAT
from nanofast.data import stdlib
from nanofast.data.aside import folder_aside
from nanofast.data.shard_writer import ShardWriter

FORMAT_VERSION = 1
VOCAB_SIZE = 4096
SPECIAL_TOKENS = NANOCHAT.special_tokens
ROW_GROUP_DOCUMENTS = 1000
# One document in 20 is for validation, the share that the loader takes of a single shard: the corpus is too small to
# give more away (Python 3.11: 0.57 MB, 160,000 tokens).
VALIDATION_SHARE = 20
# Fewer documents than this are no corpus: the installation has lost its sources.
MIN_DOCUMENTS = 1000


def ensure_sample(
    home: Path, *, data_home: Path | None = None, tokenizer_home: Path | None = None
) -> tuple[Path, Path]:
    """Make the sample corpus and its tokenizer, unless they are there; returns (data folder, `tokenizer.json`).

    `data_home` and `tokenizer_home` stand in for `home/data` and `home/tokenizers`. Several processes may call this
    at once: each builds aside, the first to finish gives its folder the name, and the others use that.

    Raises:
        FileNotFoundError: The Python installation has no sources to make a corpus from.
    """
    name = stdlib.name()
    data = (data_home or home / "data") / name
    if not _is_complete(data):
        _make_data(data)
    tokenizer = (tokenizer_home or home / "tokenizers") / f"{name}-{VOCAB_SIZE}" / "tokenizer.json"
    if not _has_tokenizer(tokenizer.parent):
        _make_tokenizer(tokenizer)
    return data, tokenizer


def split_shards(documents: Sequence[str]) -> list[Sequence[str]]:
    """Training shards of about a row group each, of equal counts; the last shard is validation's."""
    num_train = len(documents) - max(1, len(documents) // VALIDATION_SHARE)
    num_shards = max(2, round(num_train / ROW_GROUP_DOCUMENTS))
    borders = [num_train * index // num_shards for index in range(num_shards + 1)]
    shards = [documents[begin:end] for begin, end in pairwise(borders)]
    return [*shards, documents[num_train:]]


def _is_complete(data: Path) -> bool:
    """Whether the manifest is this version's and every file has the size that it states."""
    try:
        manifest = json.loads((data / "manifest.json").read_text("utf-8"))
        sizes = {name: (data / name).stat().st_size for name in manifest["files"]}
        return bool(
            manifest["format_version"] == FORMAT_VERSION
            and sizes == {name: file["size_bytes"] for name, file in manifest["files"].items()}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file()


def _make_data(data: Path) -> None:
    documents = stdlib.documents()
    if len(documents) < MIN_DOCUMENTS:
        raise FileNotFoundError(
            f"cannot make the sample corpus: this Python's standard library gives {len(documents)} documents; expected "
            f"at least {MIN_DOCUMENTS}; install Python with its sources, or name your own data with --data"
        )
    with folder_aside(data, _is_complete) as folder:
        files = {}
        for index, texts in enumerate(split_shards(documents)):
            name = f"shard_{index:05d}.parquet"
            shard = ShardWriter(folder / name, folder / f".{name}", len(texts))
            for text in texts:
                shard.add(text.encode())
            files[name] = shard.finish()
        manifest = {"format_version": FORMAT_VERSION, "source": "Python standard library", "files": files}
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")


def _make_tokenizer(path: Path) -> None:
    from nanofast.tokenizer import Tokenizer

    *train, _ = split_shards(stdlib.documents())
    tokenizer = Tokenizer.train((text for shard in train for text in shard), VOCAB_SIZE, special_tokens=SPECIAL_TOKENS)
    with folder_aside(path.parent, _has_tokenizer) as folder:
        tokenizer.save(folder / path.name, format="huggingface")
