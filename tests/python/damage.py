"""Shards whose damage is known: which rows are lost when a page, a page's header or a document is bad.

Texts are stored as they are (no codec, no dictionary), each page holds `PAGE_ROWS` rows and has a checksum, so damage
to a text's bytes costs its page, damage to a page's header the rest of its row group, and bytes that are no UTF-8 a
document.
"""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

PAGE_ROWS = 5
HEADER_FRONT = b"\x15\x00\x15"  # of a page header: kind 0, then the size


def marked_texts(seed: int, layout: list[list[int]], longest: int = 40) -> list[list[list[str]]]:
    """Random documents that each hold a word of their own: `layout[shard][row_group]` of them."""
    generator = random.Random(seed)
    words = ["one", "two", "three", "naïve", "日本", "🙂"]
    return [
        [
            [
                f"doc-{s}-{g}-{i}- " + " ".join(generator.choices(words, k=generator.randrange(longest)))
                for i in range(count)
            ]
            for g, count in enumerate(shard)
        ]
        for s, shard in enumerate(layout)
    ]


def write_marked(folder: Path, texts: list[list[list[str]]]) -> list[Path]:
    """One file a shard."""
    paths = []
    for number, row_groups in enumerate(texts):
        paths.append(folder / f"shard_{number:05d}.parquet")
        with pq.ParquetWriter(
            paths[-1],
            pa.schema([("text", pa.string())]),
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
            max_rows_per_page=PAGE_ROWS,
            data_page_size=1 << 30,
            write_batch_size=PAGE_ROWS,
        ) as writer:
            for rows in row_groups:
                writer.write_table(pa.table({"text": pa.array(rows, pa.string())}))
    return paths


def place_of(path: Path, text: str) -> int:
    """Where a text's own word lies in the file."""
    content = path.read_bytes()
    word = text.split()[0].encode()
    assert content.count(word) == 1
    return content.index(word)


def damage_page(path: Path, text: str) -> None:
    """Changes a byte of the page that holds `text`."""
    content = bytearray(path.read_bytes())
    content[place_of(path, text)] ^= 1
    path.write_bytes(content)


def damage_header(path: Path, text: str) -> None:
    """Overwrites the header of the page that holds `text`."""
    content = bytearray(path.read_bytes())
    front = content.rindex(HEADER_FRONT, 0, place_of(path, text))
    content[front : front + 3] = b"\xff\xff\xff"
    path.write_bytes(content)


def rewrite_without_checksums(path: Path, invalid: dict[int, set[int]]) -> None:
    """Writes a shard again with bytes that are no UTF-8 at the front of documents `invalid[row_group]`."""
    file = pq.ParquetFile(path)
    groups = [file.read_row_group(number).column("text").to_pylist() for number in range(file.num_row_groups)]
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())]), compression="zstd") as writer:
        for number, rows in enumerate(groups):
            values = [
                (b"\xff\xfe" if row in invalid.get(number, ()) else b"") + text.encode()
                for row, text in enumerate(rows)
            ]
            # Whoever writes such a file calls bytes text without looking, as this does.
            texts = pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())
            writer.write_table(pa.table({"text": texts}))
