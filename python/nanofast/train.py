"""`python -m nanofast.train [pretrain|midtrain|sft] [--flags]`: parse, build, fit, report, close.

Exit code 0 when the horizon was reached, 2 for a mistake of the user's, told in one line, and 128 + signal when asked
to stop.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from pathlib import Path

from nanofast.arguments import parse
from nanofast.command import SIGNALLED, USER_MISTAKE, tell
from nanofast.config import Config, ConfigError
from nanofast.config_file import read_config
from nanofast.distributed import leave
from nanofast.stages import inherited, take_stage

FAILED = 1  # training could not go on

logger = logging.getLogger("nanofast")


def run(words: list[str]) -> int:
    """Train as the words of a command line say; the exit code."""
    try:
        stage, flags = take_stage(words)
        defaults, begun = Config(), None
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
        if not stage.continues and config.run.warm_optimizer:
            raise ConfigError("--warm-optimizer is for midtrain and sft, which begin --from a checkpoint")
        # torch is imported only from here on: a wrong flag is refused at once
        from nanofast.build import announce, build, prepare
        from nanofast.resume import find_resumed

        resumed = find_resumed(config.run)
        if resumed is not None:  # the checkpoint's settings become the defaults that the flags are laid over
            config = parse(flags, resumed.config)
        prepared = prepare(config, resumed)
        if config.run.dry_run:
            print("\n".join(announce(prepared)))
            return 0
        trainer = build(prepared, stage, resumed, begun, command=["python", "-m", "nanofast.train", *words])
    except Exception as error:
        return tell(error, USER_MISTAKE, "choose folders with --home or --run, see --help")
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
    except Exception as error:  # told in a line; what was saved stays
        trainer.journal.progress.close()
        return tell(error, FAILED)
    except KeyboardInterrupt:  # asked to stop once more, behind the last step
        trainer.journal.progress.close()
        print(
            f"interrupted; the run is in {trainer.run_dir}: python -m nanofast.report writes its page", file=sys.stderr
        )
        return SIGNALLED + signal.SIGINT
    finally:
        trainer.close()
    return SIGNALLED + trainer.stop.signal_number if trainer.stop.signal_number else 0


def main() -> None:
    """The command line of this process."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logger.setLevel(logging.INFO)
    leave(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
