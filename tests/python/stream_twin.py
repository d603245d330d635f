"""A slow twin of the loader's stream in plain Python: what every batch must be, computed from token lists.

`Stream(shards, ...).batches(rank, world_size)` yields (inputs, targets) as lists. `shards[s][g]` lists the documents of
row group g of shard s as token lists without BOS, or as rendered conversations (ids, mask) with their own; None is one
that is left out and keeps its place. Written from ARCHITECTURE's words, apart from the Rust code, so that the two can
disagree.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

U64 = 2**64 - 1
Tokens = list[int]
Row = list[tuple[int, bool]]  # (token, learned)


def splitmix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & U64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = (value ^ value >> shift) * factor & U64
    return value ^ value >> 31


def combine(*numbers: int) -> int:
    state = 0
    for number in numbers:
        state = splitmix(state ^ number)
    return state


@lru_cache(maxsize=64)  # each unit of an epoch asks for the same one
def permutation(size: int, seed: int) -> list[int]:
    """Where each position goes: a Feistel network on the next even number of bits, repeated until inside."""
    width = max(1, -(-((size - 1).bit_length()) // 2))
    mask = 2**width - 1

    def once(value: int) -> int:
        high, low = divmod(value, 2**width)
        for step in range(6):
            high, low = low, high ^ splitmix(low ^ splitmix(seed + step)) & mask
        return high << width | low

    places = []
    for start in range(size):
        place = once(start)
        while place >= size:
            place = once(place)
        places.append(place)
    return places


@dataclass
class Stream:
    shards: list[list[list[Tokens]]]
    batch_size: int
    sequence_length: int
    bos: int
    packing: str = "concat"
    lanes: int = 1
    shuffle: bool = False
    seed: int = 0
    epochs: int | None = None
    unit_documents: int | None = None
    deal: str = "stream"
    shuffle_window: int = 4096
    pad_id: int | None = None  # None: BOS
    units: list[tuple[int, int, list[Tokens]]] = field(init=False)  # (shard, row group, documents)

    def __post_init__(self) -> None:
        groups = [(s, g, rows) for s, shard in enumerate(self.shards) for g, rows in enumerate(shard)]
        total = sum(len(rows) for _, _, rows in groups)
        size = self.unit_documents
        if size is None:
            few = len(groups) < self.lanes * 32
            size = max(1, min(16, total // self.lanes), total // (self.lanes * 32)) if few else 0
            widest = size if size else max((len(rows) for _, _, rows in groups), default=0)
            if self.shuffle and widest > self.shuffle_window:
                size = self.shuffle_window
        self.units = []
        for s, g, rows in groups:
            for start in range(0, len(rows), size or max(1, len(rows))):
                self.units.append((s, g, rows[start : start + (size or len(rows))]))

    def lane_units(self, lane: int) -> Iterator[tuple[int, tuple[int, int, list[Tokens]]]]:
        """(epoch, unit) of a lane, in order."""
        if self.deal == "per_file":
            mine = [unit for unit in self.units if unit[1] % self.lanes == lane]
            for epoch in itertools.count():
                if epoch == self.epochs:
                    return
                yield from ((epoch, unit) for unit in mine)
        number = lane
        while self.epochs is None or number < self.epochs * len(self.units):
            epoch, place = divmod(number, len(self.units))
            if self.shuffle:
                place = permutation(len(self.units), combine(self.seed, 1, epoch))[place]
            yield epoch, self.units[place]
            number += self.lanes

    def documents(self, lane: int) -> Iterator[tuple[object, Tokens]]:
        """(what changes from row group to row group, document) of a lane, in order."""
        per_epoch = itertools.groupby(self.lane_units(lane), key=lambda item: item[0])
        total = sum(len(rows) for _, _, rows in self.units)
        width = max(1, self.shuffle_window * len(self.units) // max(1, total)) if self.shuffle else 1
        for epoch, items in per_epoch:
            units = (unit for _, unit in items)
            for index in itertools.count():
                window = list(itertools.islice(units, width))
                if not window:
                    break
                found = [((epoch, s, g), document) for s, g, rows in window for document in rows]
                if self.shuffle:
                    order = permutation(len(found), combine(self.seed, 2, epoch, lane, index))
                    found = [found[place] for place in order]
                yield from (item for item in found if item[1] is not None)

    def marked(self, document: Any) -> Row:
        """A document's tokens, each with whether it is learned; a text gets its BOS."""
        if isinstance(document, tuple):
            return list(zip(*document, strict=True))
        return [(token, True) for token in (self.bos, *document)]

    def rows(self, lane: int) -> Iterator[Row]:
        if self.packing == "crop":
            return self.crop(self.documents(lane))
        texts = (document for _, document in self.documents(lane))
        return {"pad": self.pad, "concat": self.concat, "carry": self.carry, "one_per_row": self.one_per_row}[
            self.packing
        ](texts)

    def concat(self, documents: Iterator[Tokens]) -> Iterator[Row]:
        tokens = itertools.chain.from_iterable(self.marked(document) for document in documents)
        row = list(itertools.islice(tokens, 1))
        while True:
            row += itertools.islice(tokens, self.sequence_length + 1 - len(row))
            if len(row) < 2:
                return
            yield self.filled(row)
            row = row[-1:] if len(row) == self.sequence_length + 1 else []

    def carry(self, documents: Iterator[Tokens]) -> Iterator[Row]:
        waiting: list[tuple[int, Tokens]] = []  # (arrival, what is left), in order of arrival
        arrived = 0
        row: Tokens = []
        while True:
            for document in itertools.islice(documents, 256 - len(waiting)):
                waiting.append((arrived, document))
                arrived += 1
            if not waiting:
                break
            space = self.sequence_length + 1 - len(row)
            fits = [item for item in waiting if len(item[1]) < space]
            if arrived - waiting[0][0] > 512:
                chosen = waiting[0]
            else:
                chosen = sorted(fits or waiting, key=lambda item: (-len(item[1]), item[0]))[0]
            place = waiting.index(chosen)
            piece, rest = chosen[1][: space - 1], chosen[1][space - 1 :]
            row += [self.bos, *piece]
            if len(chosen[1]) < space:
                del waiting[place]
            else:
                waiting[place] = (chosen[0], rest)
            if len(row) == self.sequence_length + 1:
                yield [(token, True) for token in row]
                row = []
        if row:
            yield self.filled([(token, True) for token in row])

    def crop(self, documents: Iterator[tuple[object, Tokens]]) -> Iterator[Row]:
        """Refilled by chunks of 128 documents of one row group while fewer than 1,000 wait; rests are dropped."""
        chunks = (
            chunk
            for _, group in itertools.groupby(documents, key=lambda item: item[0])
            for chunk in iter(lambda group=group: list(itertools.islice(group, 128)), [])  # type: ignore[misc]
        )
        waiting: list[Tokens] = []  # with BOS, in order of arrival
        row: Tokens = []
        while True:
            while len(waiting) < 1000 and (chunk := next(chunks, None)):
                waiting += [[self.bos, *document] for _, document in chunk]
            if not waiting:
                break
            space = self.sequence_length + 1 - len(row)
            # The longest that fits, else the shortest; `sorted` keeps the oldest first among equals.
            longest_first = sorted(range(len(waiting)), key=lambda place: -len(waiting[place]))
            fits = [place for place in longest_first if len(waiting[place]) <= space]
            place = fits[0] if fits else sorted(range(len(waiting)), key=lambda place: len(waiting[place]))[0]
            row += waiting.pop(place)[:space]
            if len(row) == self.sequence_length + 1:
                yield [(token, True) for token in row]
                row = []
        if row:
            yield self.filled([(token, True) for token in row])

    def pad(self, documents: Iterator[Tokens]) -> Iterator[Row]:
        """Whole documents, truncated to a row; one that 512 newer ones have overtaken begins the next row."""
        length = self.sequence_length + 1
        waiting: list[tuple[int, Row]] = []  # (arrival, with BOS), in order of arrival
        arrived = 0
        row: Row = []
        while True:
            for document in itertools.islice(documents, 100 - len(waiting)):
                waiting.append((arrived, self.marked(document)[:length]))
                arrived += 1
            fits = [item for item in waiting if len(item[1]) <= length - len(row)]
            if fits:
                overtaken = not row and arrived - waiting[0][0] > 512
                chosen = waiting[0] if overtaken else sorted(fits, key=lambda item: (-len(item[1]), item[0]))[0]
                waiting.remove(chosen)
                row += chosen[1]
                if len(row) == length:
                    yield row
                    row = []
            elif row:
                yield self.filled(row)
                row = []
            else:
                return

    def one_per_row(self, documents: Iterator[Tokens]) -> Iterator[Row]:
        for document in documents:
            yield self.marked(document)[: self.sequence_length + 1]

    def filled(self, row: Row, width: int | None = None) -> Row:
        return row + [(self.bos if self.pad_id is None else self.pad_id, False)] * (
            (width or self.sequence_length + 1) - len(row)
        )

    def lane_batches(self, lane: int) -> Iterator[tuple[list[Tokens], list[Tokens]]]:
        rows = self.rows(lane)
        while batch := list(itertools.islice(rows, self.batch_size)):
            width = max(2, max(len(row) for row in batch))
            batch += [[] for _ in range(self.batch_size - len(batch))]
            yield self.shifted([self.filled(row, width) for row in batch])

    def shifted(self, rows: list[Row]) -> tuple[list[Tokens], list[Tokens]]:
        inputs = [[token for token, _ in row][:-1] for row in rows]
        targets = [[token if learned else -1 for token, learned in row][1:] for row in rows]
        return inputs, targets

    def batches(self, rank: int = 0, world_size: int = 1) -> Iterator[tuple[list[Tokens], list[Tokens]]]:
        lanes = [self.lane_batches(lane) for lane in range(self.lanes)]
        empty = self.shifted([self.filled([]) for _ in range(self.batch_size)])
        if self.epochs is None:
            for own in itertools.cycle(lanes[rank::world_size]):
                yield next(own)
        else:
            for turn in itertools.zip_longest(*lanes):
                yield from (batch or empty for batch in turn[rank::world_size])


@dataclass
class MixedStream(Stream):
    """A mixture: `sources[i]` are the shards of source i.

    A lane's next document comes from the source with the smallest (tokens admitted, BOS included) / weight, the first
    among equals; `reweigh` and a source that drops out begin to count anew.
    """

    sources: list[list[list[list[Tokens]]]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    run_out: str = "repeat"
    added_bos: int = 1  # conversations bring their own
    admitted: dict[int, list[int]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        same = {
            name: getattr(self, name)
            for name in ("lanes", "shuffle", "epochs", "unit_documents", "deal", "shuffle_window")
        }
        self.streams = [
            Stream(shards, self.batch_size, self.sequence_length, self.bos, seed=combine(self.seed, 3, i), **same)
            for i, shards in enumerate(self.sources)
        ]

    def reweigh(self, weights: list[float]) -> None:
        self.weights = weights
        for counts in self.admitted.values():
            counts[:] = [0] * len(counts)

    def documents(self, lane: int) -> Iterator[tuple[object, Tokens]]:
        documents = [stream.documents(lane) for stream in self.streams]
        counts = self.admitted[lane] = [0] * len(documents)
        left = list(range(len(documents)))
        while left:
            turn = sorted(left, key=lambda i: counts[i] / self.weights[i])[0]
            found = next(documents[turn], None)
            if found is not None:
                document = found[1]
                counts[turn] += self.added_bos + len(document[0] if isinstance(document, tuple) else document)
                yield found
            elif self.run_out == "drop":
                left.remove(turn)
                counts[:] = [0] * len(counts)
            else:
                return
