"""Numbers of the command line, refused in words where they make no sense."""

from __future__ import annotations

from argparse import ArgumentTypeError

MOST_COUNTED = 10_000_000
MOST_MEASURED = 1e9


def whole_number(text: str) -> int:
    """A whole number from 1 to ten million: shards, threads, rows, tokens."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= MOST_COUNTED:
        raise ArgumentTypeError(f"expected a whole number from 1 to {MOST_COUNTED:,}; found {text}")
    return number


def positive_number(text: str) -> float:
    """A number above 0 and up to a billion: seconds, megabytes, shares."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= MOST_MEASURED:
        raise ArgumentTypeError(f"expected a number above 0, up to {MOST_MEASURED:,.0f}; found {text}")
    return number


def numbers_of_threads(cores: int) -> list[int]:
    """1, 2, 4 … and as many as there are cores: what is measured where nobody says."""
    return sorted({*(1 << bit for bit in range(cores.bit_length())), cores})
