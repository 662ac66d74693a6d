"""The command line: runs a command and turns its errors into one sentence and an exit code."""

from __future__ import annotations

import codecs
import errno
import importlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from types import FrameType

from forefend.checks import InputError, unknown_name

# command: (module, purpose). The module of the given command is imported alone: --help is instant.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("forefend.cli.demo", "train and attack a defense for handwritten digits, in a minute"),
    "inspect": ("forefend.cli.inspect", "say what was understood of a classifier"),
    "train": ("forefend.cli.train", "train a preprocessor, or a classifier, with one of the recipes"),
    "evaluate": ("forefend.cli.evaluate", "measure a run or a classifier under a suite of attacks"),
    "transfer": ("forefend.cli.transfer", "measure how images crafted on other models mislead defended ones"),
    "check": ("forefend.cli.check", "check a robust accuracy for gradient masking"),
    "certify": ("forefend.cli.certify", "prove an l2 radius for each image by randomized smoothing"),
    "compare": ("forefend.cli.compare", "compare a defense with baselines at equal training compute"),
    "corruptions": ("forefend.cli.corruptions", "measure accuracy on corrupted images"),
    "reproduce": ("forefend.cli.reproduce", "run a table or figure of one of the papers beside its numbers"),
    "export": ("forefend.cli.export", "write a defense as ONNX or .pt2, or as a folder with a model card"),
    "sign": ("forefend.cli.sign", "sign a defense folder with a private key"),
    "verify": ("forefend.cli.verify", "check the signature of a defense folder"),
    "latency": ("forefend.cli.latency", "time classifiers with and without a defense"),
    "serve": ("forefend.cli.serve", "answer HTTP requests with a defended classifier, and show a page to try it"),
    "runs": ("forefend.cli.runs", "list the runs in a folder, with their state and best numbers"),
    "report": ("forefend.cli.report", "print the table of an evaluation, or make the evidence page of a run"),
    "recipes": ("forefend.cli.recipes", "list the training methods with their hyper-parameters"),
    "doctor": ("forefend.cli.doctor", "list installed packages, and how to install missing ones"),
}
UNWRITABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG),
    *(errno.EPERM, errno.EISDIR, errno.EIO),
)
# The library's errors name Python arguments, as `argument=value`; those of other names than the options.
OPTIONS = {"allow_weak": "allow-weak-classifier", "monitor": "on-overfitting", "train_missing": "train-missing"}
ARGUMENT = re.compile(
    r"\b(allow_weak|channels|download|mean|monitor|size|std|train_missing)=(?:True\b|Monitor\((\w+)\)|(\d+))"
)
# Characters of tables and help in ASCII, for consoles that cannot encode them; others become "?".
PLAIN = {"–": "-", "−": "-", "…": "...", "’": "'", "×": "x", "·": "*", "±": "+-", "→": "->", "≤": "<=", "≥": ">="}
PLAIN |= {"∞": "inf", "α": "alpha", "β": "beta", "\u03b3": "gamma", "ε": "eps", "λ": "lambda", "Δ": "delta"}
PLAIN["\u03c3"] = "sigma"


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 for success, 2 for refused input, 130 for an interruption.
    """
    _make_printable()
    try:
        try:
            return _run(sys.argv[1:] if arguments is None else arguments)
        finally:  # here, as at the interpreter's exit an error is a traceback; --help exits from within
            sys.stdout.flush()
            sys.stderr.flush()
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
                continue
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 1


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"forefend {metadata.version('forefend')}")
        return 0
    try:
        if words[0] not in COMMANDS:
            option = words[0].startswith("-")
            raise unknown_name(
                words[0], ("--help", "--version") if option else COMMANDS, "option" if option else "command"
            )
        with _interrupt_on_sigterm():
            return int(importlib.import_module(COMMANDS[words[0]][0]).main(words[1:]))
    except InputError as error:
        return _refuse(str(error))
    except KeyboardInterrupt as stop:
        print(f"\n{str(stop) or 'stopped'}; the same command resumes from there.", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        return _refuse(f"The package {error.name} is missing: run `forefend doctor` to see how to install it.")
    except ImportError as error:
        return _refuse(f"{error.name or 'A package'} cannot be loaded ({error}): free memory, or install it anew.")
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        return _refuse(
            f"Cannot write {error.filename or 'a file'} ({error.strerror}): free space or choose another --out."
        )
    except MemoryError:
        return _refuse("Memory ran out: give a smaller --batch-size, or fewer images.")
    except RuntimeError as error:
        from forefend.runtime.batch_size import out_of_memory  # imports torch, as the command has

        if not out_of_memory(error):
            raise
        return _refuse(f"Memory ran out ({str(error).splitlines()[0]}): give a smaller --batch-size.")


def usage() -> str:
    """The list of commands."""
    lines = [f"  {name:12} {purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "usage: forefend COMMAND [options]   (forefend COMMAND --help)\n\n" + "\n".join(lines)


@contextmanager
def _interrupt_on_sigterm() -> Iterator[None]:
    """Handle SIGTERM, which schedulers send, as Ctrl-C. Training installs its own handler."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        old = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # only the main thread may install handlers
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _make_printable() -> None:
    """Print characters that the console cannot encode as similar ASCII, instead of an error."""

    def replace(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        return "".join(PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end

    codecs.register_error("forefend", replace)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="forefend")


def _refuse(sentence: str) -> int:
    print(f"forefend: {ARGUMENT.sub(_as_option, sentence)}", file=sys.stderr)
    return 2


def _as_option(argument: re.Match[str]) -> str:
    name, function, number = argument.groups()
    value = function.replace("_", "-") if function else number
    return " ".join(filter(None, [f"--{OPTIONS.get(name, name)}", value]))
