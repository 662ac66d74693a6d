"""The parser that every command uses, and the options that several share."""

from __future__ import annotations

import argparse
import difflib
import re
from typing import Any, NoReturn

import jsonargparse

from forefend.checks import InputError, check_numbers


class Parser(jsonargparse.ArgumentParser):
    """jsonargparse with our manners: errors of one sentence, YAML in by `--config` and out by `--print_config`."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(
            prog=f"forefend {command}",
            description=description,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        self.add_argument("--config", action="config", help="read options from a YAML file")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Refuse the command line in one sentence.

        Raises:
            InputError: always.
        """
        message = " ".join(message.split())
        typed = re.search(r"--[\w-]+", message) if "nrecognized" in message else None
        if typed:
            raise InputError(self._unknown_option(typed.group()))
        stranger = re.match(r"Option '([\w-]+)' is not accepted", message)
        if stranger:
            raise InputError(self._unknown_option(f"--{stranger[1].replace('_', '-')}"))
        wrong = re.match(r'Parser key "(\w+)".*(?:Got|Given) value: (.*)', message)
        if wrong:
            message = f"{wrong[2]!r} does not suit --{wrong[1].replace('_', '-')}"
        raise InputError(f"{message.rstrip('.')}: see {self.prog} --help.")

    def parse_args(self, *arguments: Any, **options: Any) -> Any:
        """The options, numbers within their ranges.

        Raises:
            InputError: an option that is unknown, of the wrong kind or out of range.
        """
        parsed = super().parse_args(*arguments, **options)
        check_numbers(
            {name: parsed[name] for name in ("images", "batch_size", "processes", "seed", "size") if name in parsed}
        )
        return parsed

    def _unknown_option(self, option: str) -> str:
        known = [text for action in self._actions for text in action.option_strings if text.startswith("--")]
        near = difflib.get_close_matches(option, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"see {self.prog} --help."
        return f"There is no option {option} in {self.prog}: {hint}"

    def add_data(self, default: str | None = "digits") -> None:
        """Which images."""
        group = self.add_argument_group("images")
        group.add_argument(
            "--data",
            type=str | None,
            default=default,
            help="digits, mnist, fashion-mnist, cifar-10, cifar-100, svhn, an .npz or a folder",
        )
        group.add_argument("--data-dir", type=str | None, help="where data sets lie (else FOREFEND_DATA, else .data)")
        group.add_argument("--size", type=int | None, help="side to which a folder's pictures are cut")
        group.add_argument("--download", action="store_true", help="fetch an absent data set from its publisher")

    def add_classifiers(self) -> None:
        """How classifiers named by their weights are to be read."""
        group = self.add_argument_group("classifiers")
        number: dict[str, Any] = {"nargs": "+", "type": float}
        group.add_argument("--mean", **number, help="normalization of architecture:weights, one number or C")
        group.add_argument("--std", **number, help="likewise; --mean 0 --std 1 means none")
        group.add_argument("--allow-weak-classifier", action="store_true", help="go on with a classifier near chance")
        group.add_argument("--runs", type=str, default="runs", help="where classifiers trained on demand are kept")
