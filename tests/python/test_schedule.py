"""The learning rate over a run."""

from __future__ import annotations

import pytest

from nanofast.schedule import decay_fraction, lr_fraction, momentum


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


def test_momentum_rises_in_300_steps_or_a_quarter_of_a_short_run() -> None:
    assert momentum(0, 10_000, 0.95) == pytest.approx(0.85)
    assert momentum(150, 10_000, 0.95) == pytest.approx(0.90)
    assert momentum(300, 10_000, 0.95) == momentum(9_999, 10_000, 0.95) == pytest.approx(0.95)
    assert momentum(25, 100, 0.95) == pytest.approx(0.95)
    assert momentum(0, 100, 0.5) == momentum(50, 100, 0.5) == 0.5


def test_weight_decay_falls_to_nothing_at_the_horizon() -> None:
    assert [decay_fraction(step, 4) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
