"""The learning rate over a run."""

from __future__ import annotations

import pytest

from nanofast.schedule import lr_fraction


def fractions(num_iterations: int, warmup: float, warmdown: float, final: float) -> list[float]:
    return [lr_fraction(step, num_iterations, warmup, warmdown, final) for step in range(num_iterations)]


def test_rises_holds_and_falls() -> None:
    assert fractions(10, 0.2, 0.4, 0.0) == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_ends_one_step_above_the_final_fraction() -> None:
    assert fractions(4, 0.0, 1.0, 0.2) == pytest.approx([1.0, 0.8, 0.6, 0.4])


def test_no_step_has_a_rate_of_zero() -> None:
    for length in (1, 2, 3, 7, 100):
        for warmup, warmdown in ((0.0, 0.0), (0.5, 0.5), (0.0, 1.0), (1.0, 0.0)):
            assert min(fractions(length, warmup, warmdown, 0.0)) > 0
            assert max(fractions(length, warmup, warmdown, 0.0)) <= 1


def test_does_not_move_without_ramps() -> None:
    assert set(fractions(5, 0.0, 0.0, 0.0)) == {1.0}
