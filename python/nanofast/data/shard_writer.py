"""A shard on its way: a parquet file that has its name when it is whole, and what a manifest says of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from nanofast.data.aside import flush

# Texts that go to the writer at once: large enough that the call does not count.
WRITE_DOCUMENTS = 256


class ShardWriter:
    """Writes `final` beside `aside`, where it lies until `finish`."""

    def __init__(self, final: Path, aside: Path, row_group_documents: int) -> None:
        from nanofast._nanofast import ParquetWriter

        self.name = final.name
        self._final, self._aside = final, aside
        self._writer = ParquetWriter(aside, row_group_documents=row_group_documents)
        self._waiting: list[str] = []
        self.num_documents = self.text_bytes = 0

    def add(self, text: bytes) -> None:
        """Append a document."""
        self._waiting.append(text.decode())
        self.num_documents += 1
        self.text_bytes += len(text)
        if len(self._waiting) == WRITE_DOCUMENTS:
            self._writer.write(self._waiting)
            self._waiting = []

    def finish(self) -> dict[str, Any]:
        """What the manifest says of it; the hash is of what the disk holds."""
        self._writer.write(self._waiting)
        self._writer.close()
        flush(self._aside)
        digest = hashlib.sha256()
        with self._aside.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        self._aside.replace(self._final)
        flush(self._final.parent)
        return {
            "size_bytes": self._final.stat().st_size,
            "sha256": digest.hexdigest(),
            "num_documents": self.num_documents,
            "text_bytes": self.text_bytes,
        }

    def discard(self) -> None:
        """Leave nothing."""
        self._writer.close()
        self._aside.unlink()
