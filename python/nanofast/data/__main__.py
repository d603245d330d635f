"""`python -m nanofast.data COMMAND`: getting data in, and looking at it.

A mistake of the user is one line and exit code 2.
"""

from __future__ import annotations

import importlib
import sys

from nanofast.command import USER_MISTAKE, Parser, exit_code

# Command → (what it does, an example). A command is a module of this package with `add_arguments` and `run`,
# its hyphens underscores.
COMMANDS = {
    "download": ("fetch the shards of a published data set, whole and verified", "fineweb-edu -n 8"),
    "prepare": (
        "make well-shaped shards of .txt, .jsonl, .csv, parquet, data sets or source code",
        "dump.jsonl.zst ~/shards --column content --deduplicate",
    ),
    "tokenize": ("write pre-tokenized files", "~/shards tokens.bin --tokenizer r50k_base"),
    "train-tokenizer": ("train a vocabulary on text files", "~/shards --vocab-size 32768 --out tokenizer.json"),
    "inspect": ("show what is in a data set, and what to mind", "~/shards --tokenizer r50k_base --world-size 8"),
    "locate": ("tell which documents a run was trained on in a step", "auto --step 1234"),
    "bench": ("measure how fast this machine feeds a data set", "~/shards --tokenizer r50k_base --gpu H100"),
}


def main() -> int:
    """Run one command, return its exit code; a mistake is one line."""
    return exit_code(_run, _tell, "interrupted; the next start goes on where this one ended")


def _run() -> int:
    parser = Parser(prog="python -m nanofast.data", description="Getting data in, and looking at it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (does, example) in COMMANDS.items():
        added = commands.add_parser(
            name, help=does, description=does, epilog=f"example: python -m nanofast.data {name} {example}"
        )
        if name in sys.argv[1:2]:  # the other commands' modules, and what they import, are left alone
            try:
                command = importlib.import_module(f"nanofast.data.{name.replace('-', '_')}")
            except ModuleNotFoundError as error:
                print(f"error: `{error.name}` is not installed; get it: pip install 'nanofast[hub]'", file=sys.stderr)
                return 2
            command.add_arguments(added)
    arguments = parser.parse_args()
    return int(command.run(arguments))


def _tell(error: Exception) -> int:
    """What went wrong, in one line: here a value that is refused is a mistake of the user's too."""
    if not isinstance(error, OSError | ValueError | TypeError | MemoryError | OverflowError):
        raise error
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        line = f"cannot use `{error.filename}`: {error.strerror}"
    else:
        line = " ".join(str(error).split()) or type(error).__name__
    print(f"error: {line}", file=sys.stderr)
    return USER_MISTAKE


if __name__ == "__main__":
    sys.exit(main())
