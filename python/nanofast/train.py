"""`python -m nanofast.train [pretrain|midtrain|sft] [--flags]`: parse, build, fit, report, close. Everything else is in
its own file.

Exit code 0 when the horizon was reached, 2 for a mistake of the user's, told in one line, and 128 + signal when asked
to stop.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from pathlib import Path

import nanofast
from nanofast.arguments import parse
from nanofast.command import SIGNALLED, USER_MISTAKE, explained
from nanofast.config import Config, ConfigError
from nanofast.config_file import read_config
from nanofast.stages import inherited, take_stage

FAILED = 1  # training could not go on

logger = logging.getLogger("nanofast")


def run(words: list[str]) -> int:
    """Train as the words of a command line say; the exit code."""
    try:
        stage, flags = take_stage(words)
        defaults, resumed, begun = Config(), None, None
        config = parse(flags, defaults)
        if stage.continues and config.run.resume is None:
            from nanofast.resume import find_start

            begun, tokenizer = find_start(stage.name, config.run)
            defaults = inherited(stage, begun.config, str(tokenizer))
            config = parse(flags, defaults)
        if config.run.config is not None:
            defaults = read_config(Path(config.run.config), defaults)
            config = parse(flags, defaults)
        if not stage.continues and config.run.from_run is not None:
            raise ConfigError(
                f"--from is for midtrain and sft; put the stage first: midtrain --from {config.run.from_run}"
            )
        # torch is imported only from here on: a wrong flag is refused at once
        from nanofast.build import announce, build, prepare
        from nanofast.resume import find, home_folder

        if config.run.resume is not None:
            resumed = find(config.run.resume, config.run.run, home_folder(config.run.home))
            if resumed is not None:  # the checkpoint's settings become the defaults that the flags are laid over
                config = parse(flags, resumed.config)
        prepared = prepare(config, resumed)
        if config.run.dry_run:
            print("\n".join(announce(prepared)))
            return 0
        trainer = build(prepared, stage, resumed, begun, command=["python", "-m", "nanofast.train", *words])
    except (ConfigError, nanofast.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_MISTAKE
    except ModuleNotFoundError as error:
        print(
            f"error: training needs `{error.name}`, which is not installed; pip install {error.name}", file=sys.stderr
        )
        return USER_MISTAKE
    except OSError as error:  # a folder that cannot be written, a disk that is full
        print(f"error: {explained(error)}; choose folders with --home or --run, see --help", file=sys.stderr)
        return USER_MISTAKE
    except (RuntimeError, MemoryError) as error:
        return _without_memory(error, USER_MISTAKE)
    except KeyboardInterrupt:
        print("interrupted before the first step; nothing was trained", file=sys.stderr)
        return SIGNALLED + signal.SIGINT
    try:
        trainer.fit()
        if trainer.config.run.report and trainer.world.is_main:
            start = time.perf_counter()
            try:
                from nanofast.report import write_report

                path = write_report(trainer.run_dir)
                trainer.journal.progress.say(f"report     {path} ({time.perf_counter() - start:.1f} s)")
            except Exception as error:  # the run itself is saved and whole
                logger.warning("the report could not be written: %s: %s", type(error).__name__, error)
    except (ConfigError, nanofast.Error) as error:  # told in a line; what was saved stays
        trainer.journal.progress.close()
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except (RuntimeError, MemoryError) as error:
        trainer.journal.progress.close()
        return _without_memory(error, FAILED)
    except KeyboardInterrupt:  # asked to stop once more, behind the last step
        trainer.journal.progress.close()
        print(
            f"interrupted; the run is in {trainer.run_dir}: python -m nanofast.report writes its page", file=sys.stderr
        )
        return SIGNALLED + signal.SIGINT
    finally:
        trainer.close()
    return SIGNALLED + trainer.stop.signal_number if trainer.stop.signal_number else 0


def _without_memory(error: RuntimeError | MemoryError, code: int) -> int:
    """Tell in a line that memory ran out, with what would help; other errors are raised again."""
    from nanofast.memory import is_out_of_memory

    if not is_out_of_memory(error):
        raise error
    print(
        f"error: out of memory ({str(error).splitlines()[0]}); lower --depth, --n-embd, --sequence-length or "
        "--device-batch-size; --dry-run estimates what a run needs",
        file=sys.stderr,
    )
    return code


def main() -> int:
    """The command line of this process."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logger.setLevel(logging.INFO)
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
