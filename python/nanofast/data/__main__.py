"""`python -m nanofast.data COMMAND`: getting data in, and looking at it.

A mistake of the user is one line and exit code 2.
"""

from __future__ import annotations

import argparse
import sys


def main() -> int:
    """Parse, run one command, return its exit code."""
    try:
        from nanofast.data import download
    except ModuleNotFoundError as error:
        print(f"error: `{error.name}` is not installed; get it: pip install 'nanofast[hub]'", file=sys.stderr)
        return 2

    parser = argparse.ArgumentParser(prog="python -m nanofast.data", description="Getting data in, and looking at it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    download.add_arguments(
        commands.add_parser(
            "download",
            help="fetch the shards of a published data set",
            description="Fetch the shards of a published data set, whole and verified.",
            epilog="example: python -m nanofast.data download fineweb-edu -n 8",
        )
    )
    arguments = parser.parse_args()
    try:
        return {"download": download.run}[arguments.command](arguments)
    except KeyboardInterrupt:
        print("interrupted; the next start goes on where this one ended", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
