"""How well does shuffling mix?  `pytest benches/python/bench_shuffle.py`

Documents that lie together are alike, at worst all of a row group. Of 256 documents that a step takes, 32 from each of
8 lanes, the figure is the effective number of row groups that they are from (1 ÷ Σ share²): 8 when nothing is shuffled,
and for independent draws what `perfect` says. Computed from the order of documents alone, by the tests' twin of the
stream; means over an epoch.
"""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Iterator
from itertools import islice

import pytest

from results import Results, Table
from stream_twin import Stream

LANES, DOCUMENTS_A_LANE = 8, 32
# Row groups of 1,000 documents: enough of them to be dealt whole, and few, which are dealt by ranges.
LAYOUTS = {"whole row groups": 400, "ranges": 20}


def effective_groups(steps: Iterator[list[int]]) -> float:
    def of(step: list[int]) -> float:
        shares = [count / len(step) for count in Counter(step).values()]
        return 1 / sum(share * share for share in shares)

    return statistics.mean(map(of, steps))


def steps(stream: Stream) -> Iterator[list[int]]:
    """The row groups of the documents of each step."""
    lanes = [(document[0] for _, document in stream.documents(lane)) for lane in range(LANES)]
    while step := [group for lane in lanes for group in islice(lane, DOCUMENTS_A_LANE)]:
        if len(step) == LANES * DOCUMENTS_A_LANE:
            yield step


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shuffling_mixes(layout: str, smoke: bool, results: Results) -> None:
    num_groups, rows = LAYOUTS[layout], 100 if smoke else 1000
    shards = [[[[group]] * rows for group in range(num_groups)]]
    settings = {"lanes": LANES, "epochs": 1, "unit_documents": 0 if layout == "whole row groups" else None}
    found = {
        f"shuffle={shuffle}": effective_groups(steps(Stream(shards, 1, 1, 0, shuffle=shuffle, **settings)))
        for shuffle in (False, True)
    }
    generator = random.Random(0)
    draws = ([generator.randrange(num_groups) for _ in range(LANES * DOCUMENTS_A_LANE)] for _ in range(100))
    found["perfect"] = effective_groups(iter(draws))
    assert found["shuffle=False"] < found["shuffle=True"] < 1.1 * found["perfect"]
    note = f"{num_groups} row groups of {rows}, {LANES} lanes, {DOCUMENTS_A_LANE} documents a lane and step"
    title = f"How well shuffling mixes, {layout}"
    results.add(Table(title, ("order", "row groups that a step is from"), list(found.items()), (note,)))
