"""The command line: finds the verb, runs it, and turns what went wrong into one sentence and an exit code."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from forefend.checks import InputError, unknown_name

# verb: (module, purpose). Modules are imported when their verb is typed, so that --help is instant.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("forefend.cli.demo", "a defense for real digits in a minute: a table and a picture"),
    "train": ("forefend.cli.train", "train a preprocessor, or a classifier, with one of the recipes"),
    "evaluate": ("forefend.cli.evaluate", "measure a run or a bare classifier under a suite of attacks"),
    "check": ("forefend.cli.check", "look for signs of gradient masking"),
    "certify": ("forefend.cli.certify", "prove an l2 radius for each image, by randomized smoothing"),
    "compare": ("forefend.cli.compare", "this defense beside other ways to robustness, at equal compute"),
    "corruptions": ("forefend.cli.corruptions", "accuracy on corrupted images, made here or published"),
    "report": ("forefend.cli.report", "the table of an evaluation, as text or Markdown"),
    "bench": ("forefend.cli.bench", "how fast attacks, training and verdicts are here, beside others'"),
    "recipes": ("forefend.cli.recipes", "every training method with its hyper-parameters"),
    "doctor": ("forefend.cli.doctor", "what is installed, what is missing, and the line that adds it"),
}
UNWRITABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG),
    *(errno.EPERM, errno.EISDIR, errno.EIO),
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 is success, 2 is input that was refused, 130 is an interruption."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    try:
        if words[0] not in COMMANDS:
            raise unknown_name(words[0], COMMANDS, "command")
        with _terminable():
            code = int(importlib.import_module(COMMANDS[words[0]][0]).main(words[1:]))
        sys.stdout.flush()
        return code
    except InputError as error:
        return _refuse(str(error))
    except KeyboardInterrupt as stop:
        print(f"\n{str(stop) or 'stopped'}; the same command goes on from there.", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        return _refuse(f"The package {error.name} is missing: `forefend doctor` names the line that adds it.")
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        return _refuse(
            f"Cannot write {error.filename or 'a file'} ({error.strerror}): free space or choose another --out."
        )
    except RuntimeError as error:
        from forefend.runtime.batch_size import out_of_memory  # needs torch, and who gets here has it loaded

        if not out_of_memory(error):
            raise
        return _refuse(f"Memory ran out ({str(error).splitlines()[0]}): give a smaller --batch-size.")


def usage() -> str:
    """The first screen."""
    lines = [f"  {name:10} {purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "usage: forefend COMMAND [options]   (forefend COMMAND --help)\n\n" + "\n".join(lines)


@contextmanager
def _terminable() -> Iterator[None]:
    """Take SIGTERM, as schedulers send it, for Ctrl-C; training, which saves its state first, has its own handler."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        old = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # only the main thread may listen
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _refuse(sentence: str) -> int:
    print(f"forefend: {sentence}", file=sys.stderr)
    return 2
