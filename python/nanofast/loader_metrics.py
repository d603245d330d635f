"""What a loader's counters mean together."""

from __future__ import annotations

from collections.abc import Mapping


def bottleneck(stage_seconds: Mapping[str, float], seconds_running: float) -> str:
    """The stage that kept batches from coming faster: see `BatchLoader.metrics`."""
    if stage_seconds["copy"] > seconds_running / 2:
        return "copy"
    busy = {stage: stage_seconds[stage] for stage in ("read", "decode", "tokenize", "pack")}
    if stage_seconds["ring_full"] > sum(busy.values()):
        return "ring_full"
    return max(busy, key=lambda stage: busy[stage])


def shares(names: list[str], counts: list[tuple[int, int]]) -> dict[str, dict[str, float]]:
    """For each source its tokens admitted and trained, and their parts of all."""
    all_admitted, all_trained = (max(1, sum(count)) for count in zip(*counts, strict=True)) if counts else (1, 1)
    return {
        name: {
            "admitted": admitted,
            "trained": trained,
            "admitted_share": admitted / all_admitted,
            "trained_share": trained / all_trained,
        }
        for name, (admitted, trained) in zip(names, counts, strict=True)
    }
