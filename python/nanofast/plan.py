"""How long a run is: its steps, from whichever horizon was given; a pure function of configuration and model size."""

from __future__ import annotations

import dataclasses

from nanofast.config import DEFAULT_ITERATIONS, DEFAULT_TOKENS_PER_PARAMETER, Config


def with_horizon(config: Config, matrix_parameters: int) -> Config:
    """The configuration with `num_iterations` filled in. `matrix_parameters` counts the weights of matrix products."""
    schedule = config.schedule
    if schedule.num_iterations is not None:
        return config
    ratio = schedule.tokens_per_parameter
    if ratio is None and config.data.data is None:
        steps = DEFAULT_ITERATIONS
    else:
        assert schedule.total_batch_size is not None
        tokens = (DEFAULT_TOKENS_PER_PARAMETER if ratio is None else ratio) * matrix_parameters
        steps = max(1, round(tokens / schedule.total_batch_size))
    return dataclasses.replace(
        config, schedule=dataclasses.replace(schedule, num_iterations=steps, tokens_per_parameter=None)
    )
