"""A shard on its way: a parquet file that has its name when it is whole, and what a manifest says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nanofast.data.aside import publish, sha256_of

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
        digest = sha256_of(self._aside)
        publish(self._aside, self._final)
        return {
            "size_bytes": self._final.stat().st_size,
            "sha256": digest,
            "num_documents": self.num_documents,
            "text_bytes": self.text_bytes,
        }

    def discard(self) -> None:
        """Leave nothing."""
        self._writer.close()
        self._aside.unlink()
