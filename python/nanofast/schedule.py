"""How the learning rate moves over a run: pure functions of the step, so that a resumed run needs nothing but its
number.

    warm-up            constant              warm-down
       ______________________________________
      /                                       \\
     /                                          \\____ final

    lr_fraction(step=0, num_iterations=200, warmup_ratio=0.02, warmdown_ratio=0.5, final=0.0)    # 0.25
"""

from __future__ import annotations

# Muon's momentum starts lower, since early gradients soon stop being true (Jordan et al. 2024: 0.85 to 0.95 in 300
# steps).
MOMENTUM_START = 0.85
MOMENTUM_STEPS = 300


def momentum(step: int, num_iterations: int, height: float) -> float:
    """Muon's momentum in step `step`: rises to `height` over 300 steps, or over a quarter of a shorter run."""
    steps = max(1, min(MOMENTUM_STEPS, num_iterations // 4))
    start = min(MOMENTUM_START, height)
    return start + (height - start) * min(1.0, step / steps)


def decay_fraction(step: int, num_iterations: int) -> float:
    """What part of its height weight decay has in step `step`: falls in a line to nothing at the horizon."""
    return max(0.0, 1.0 - step / num_iterations)


def lr_fraction(step: int, num_iterations: int, warmup_ratio: float, warmdown_ratio: float, final: float) -> float:
    """What part of its height the learning rate has in step `step` (0-based) of `num_iterations`.

    The first step of a warm-up of n steps gets 1/n, not 0, and the last step of a run gets more than `final`, which
    would be the step after: no step is spent on a rate of zero.
    """
    warmup_steps = round(warmup_ratio * num_iterations)
    warmdown_steps = round(warmdown_ratio * num_iterations)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    left = num_iterations - step
    if left >= warmdown_steps:
        return 1.0
    return final + (1.0 - final) * max(left, 0) / warmdown_steps
