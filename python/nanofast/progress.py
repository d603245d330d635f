"""What the user sees while training: one live line on a terminal, a plain line now and then anywhere else.

Only the main rank has one that speaks.

    progress = Progress(num_iterations=200)
    progress.step(StepView(step=1, loss=8.3, bpb=3.1, tokens_per_second=6000, wait_fraction=0.0, seconds_left=170))
    progress.phase("validation"); progress.say("validation at step 50: 1.9 bits per byte"); progress.close()
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.text import Text

PLAIN_SECONDS = 10.0  # between lines where there is no terminal: a log file of a day stays under 10,000 lines


@dataclass(frozen=True)
class StepView:
    """The figures of the line. `loss` is smoothed, in nats per token; `seconds_left` is an estimate."""

    step: int
    loss: float
    bpb: float
    tokens_per_second: float
    wait_fraction: float
    seconds_left: float


def duration(seconds: float) -> str:
    """`1:05` or `2:03:04`."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def line(view: StepView, num_iterations: int) -> str:
    """The progress line as text."""
    return (
        f"step {view.step}/{num_iterations}  loss {view.loss:.3f}  {view.bpb:.3f} bits/byte  "
        f"{view.tokens_per_second:,.0f} tokens/s  {view.wait_fraction:.1%} waiting for data  "
        f"{duration(view.seconds_left)} left"
    )


class Progress:
    """The line, and messages above it. A quiet one (ranks other than the main one) prints nothing."""

    def __init__(self, num_iterations: int, *, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or Console(quiet=quiet, highlight=False)
        self._num_iterations = num_iterations
        self._quiet = quiet
        self._text = ""
        self._last_plain = 0.0
        self._is_shown = self.console.is_terminal and not quiet
        self._live: Live | None = None

    def _show(self, text: str) -> None:
        """Put the text on the live line, which begins here: until then the terminal's cursor is not taken away."""
        if self._live is None:
            self._live = Live(Text(""), console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"))

    def step(self, view: StepView) -> None:
        """Show a step."""
        self._text = line(view, self._num_iterations)
        if self._is_shown:
            self._show(self._text)
        elif not self._quiet and (
            time.monotonic() - self._last_plain >= PLAIN_SECONDS or view.step == self._num_iterations
        ):
            self._last_plain = time.monotonic()
            self.say(self._text)

    def phase(self, name: str) -> None:
        """Say that something other than training is going on; an empty name ends it."""
        if self._is_shown:
            self._show(f"{self._text}  {name and '… ' + name}")

    def say(self, message: str) -> None:
        """Print a line that stays."""
        self.console.print(Text(message), soft_wrap=True)

    def close(self) -> None:
        """Take the live line away and give the terminal back; idempotent."""
        self._is_shown = False
        if self._live is not None:
            self._live.stop()
            self._live = None
