"""The parser of every command, and the options that several commands share."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import jsonargparse
import yaml  # type: ignore[import-untyped]

from forefend.checks import InputError, check_numbers
from forefend.runtime.files import check_regular


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Show the default of an option, unless it is empty."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        empty = action.default is None or action.default is False or action.default == []
        return action.help if empty else super()._get_help_string(action)


# Other spellings, in lower case and without "-" and "_", of the values of an option.
DATA_SETS = ("digits", "mnist", "fashion-mnist", "cifar-10", "cifar-100", "svhn")
ALIASES: dict[str, dict[str, str]] = {
    "suite": {"autoattack": "standard", "aa": "standard", "pgd": "curve"},
    "data": {name.replace("-", ""): name for name in DATA_SETS},
}
FORMS = "a run, card, ARCHITECTURE:WEIGHTS, timm:NAME, torchvision:NAME, hf:ID, .pt2, .onnx, MODULE:FACTORY"
# Names of options elsewhere, and what they are called here.
ELSEWHERE = {"--attack": "--suite", "--dataset": "--data", "--model": "--classifiers", "--arch": "--classifiers"}
ELSEWHERE |= {"--eps": "--threat Linf:8/255", "--norm": "--threat Linf:8/255", "--checkpoint": "--classifiers"}


class Parser(jsonargparse.ArgumentParser):
    """A jsonargparse parser whose errors are one sentence.

    `--config` reads options from YAML and `--print_config` prints them.
    """

    def __init__(self, command: str, description: str, config: str = "YAML file of options") -> None:
        super().__init__(
            prog=f"forefend {command}",
            description=description,
            formatter_class=_HelpFormatter,
        )
        self.add_argument("--config", action="config", help=config)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the parser's message as one sentence.

        Raises:
            InputError: always.
        """
        message = " ".join(message.split())
        typed = re.search(r"--[\w-]+", message) if "nrecognized" in message else None
        if typed:
            raise InputError(self._unknown_option(typed.group()))
        in_file = re.match(r"Option '([\w-]+)' is not accepted", message)
        if in_file:
            raise InputError(self._unknown_option(f"--{in_file[1].replace('_', '-')}"))
        wrong = re.match(r'Parser key "(\w+)".*(?:Got|Given) value: (.*)', message)
        if wrong:
            message = f"--{wrong[1].replace('_', '-')} does not accept {wrong[2]!r}"
        raise InputError(f"{message.rstrip('.')}: see {self.prog} --help.")

    def parse_path(self, path: Any, *arguments: Any, **options: Any) -> Any:
        """Parse a file of options, after a check that reading it ends.

        Raises:
            InputError: the file is no regular file, is too large, or holds what no options need.
        """
        _check_config(Path(path))
        return super().parse_path(path, *arguments, **options)

    def parse_args(self, args: Any = None, *others: Any, **options: Any) -> Any:
        """Parse the options, replace other spellings and check the range of numbers.

        Raises:
            InputError: an option is unknown, of the wrong type or out of range.
        """
        if args is not None and "--threat" in self._known():
            args = with_threat(args)
        for word in args or ():  # before argparse takes it for an abbreviation
            if word in ELSEWHERE and word not in self._known():
                raise InputError(self._unknown_option(word))
        parsed = super().parse_args(args, *others, **options)
        for name, spellings in ALIASES.items():
            given = parsed.get(name)
            if isinstance(given, str) and not Path(given).exists():
                parsed[name] = spellings.get(re.sub("[-_]", "", given.lower()), given)
        check_numbers(
            {
                name: parsed[name]
                for name in ("images", "batch_size", "pictures", "processes", "seed", "size")
                if name in parsed
            }
        )
        return parsed

    def _unknown_option(self, option: str) -> str:
        known = self._known()
        elsewhere = {name: ours for name, ours in ELSEWHERE.items() if ours.split(" ")[0] in known}
        near = difflib.get_close_matches(option, [*known, *elsewhere], n=1, cutoff=0.5)
        hint = f"did you mean {elsewhere.get(near[0], near[0])}?" if near else f"see {self.prog} --help."
        return f"There is no option {option} in {self.prog}: {hint}"

    def _known(self) -> list[str]:
        return [text for action in self._actions for text in action.option_strings if text.startswith("--")]

    def add_table(self) -> None:
        """Add what the table of an evaluation shows."""
        self.add_argument("--attacks", action="store_true", help="show every attack, not only the worst of each image")
        self.add_argument(
            "--changes", action="store_true", help="show fooling rates, and how far attack and preprocessor move images"
        )
        self.add_argument(
            "--cumulative", action="store_true", help="count an image misclassified at a radius at every larger one"
        )

    def add_models(self) -> None:
        """Add the run and further classifiers to evaluate."""
        self.add_argument("run", nargs="?", type=str | None, help="folder of a run; omit it for bare classifiers")
        self.add_argument(
            "--classifiers", "--classifier", nargs="+", type=str, default=[], help=f"more classifiers: {FORMS}"
        )

    def add_evaluation(self, *, out: str, images: int | None = None) -> None:
        """Add what every evaluation has; `out` names its files."""
        self.add_argument("--images", type=int | None, default=images, help="size of a stratified sample (else all)")
        self.add_argument("--batch-size", type=int, default=250, help="images in a batch")
        self.add_argument("--seed", type=int, default=0, help="seed of the sample and of random numbers")
        self.add_argument("--device", type=str | None, help="cpu or cuda (else the fastest available)")
        self.add_argument("--out", type=str | None, help=f"folder for {out}")
        self.add_data()
        self.add_classifiers()

    def add_data(self) -> None:
        """Add the choice of the data set."""
        group = self.add_argument_group("images")
        group.add_argument(
            "--data",
            type=str | None,
            help=f"{', '.join(DATA_SETS)}, an .npz, a .csv of paths and labels, or a folder",
        )
        group.add_argument("--data-dir", type=str | None, help="folder of data sets (else FOREFEND_DATA, else .data)")
        group.add_argument("--size", type=int | None, help="height and width to which pictures are resized and cropped")
        group.add_argument("--channels", type=int | None, help="1 to read pictures as gray (else RGB)")
        group.add_argument("--download", action="store_true", help="download a data set or weights that are missing")

    def add_classifiers(self) -> None:
        """Add how classifiers are loaded."""
        group = self.add_argument_group("classifiers")
        number: dict[str, Any] = {"nargs": "+", "type": float}
        group.add_argument("--mean", **number, help="normalization that the source does not name, one number or C")
        group.add_argument("--std", **number, help="likewise; --mean 0 --std 1 mean none")
        kinds = Literal["logits", "probabilities", "labels"]
        group.add_argument("--outputs", type=kinds, default="logits", help="what a black box returns")
        group.add_argument("--allow-weak-classifier", action="store_true", help="accept a classifier near chance")
        group.add_argument("--runs", type=str, default="runs", help="folder of runs, for a trained ARCHITECTURE")
        group.add_argument(
            "--train-missing", action="store_true", help="train an ARCHITECTURE that was not trained yet"
        )


def with_threat(words: Sequence[str]) -> list[str]:
    """Replace `--norm NORM --eps RADIUS` by `--threat NORM:RADIUS`; the norm is l∞ by default.

    Raises:
        InputError: a norm without a radius, or both forms at once.
    """
    kept, given = list[str](), dict[str, str]()
    rest = iter(words)
    for word in rest:
        name, _, value = word.partition("=")
        if name in ("--eps", "--epsilon", "--norm"):
            given["norm" if name == "--norm" else "radius"] = value or next(rest, "")
        else:
            kept.append(word)
    if not given:
        return kept
    if "radius" not in given or any(word.partition("=")[0] == "--threat" for word in kept):
        raise InputError("Give a norm and a radius once, as --threat Linf:8/255 or as --norm Linf --eps 8/255.")
    norm = given.get("norm", "Linf").lower().removeprefix("l").lstrip("_")
    return [*kept, "--threat", f"{ {'inf': 'Linf', '2': 'L2'}.get(norm, given.get('norm')) }:{given['radius']}"]


def _check_config(path: Path) -> None:
    """Refuse YAML that expands to more than memory holds: references to earlier parts, and deep nesting."""
    check_regular(path, 100_000)
    depth = 0
    try:
        for token in yaml.scan(path.read_text(encoding="utf-8")):
            if isinstance(token, yaml.AnchorToken | yaml.AliasToken):
                raise InputError(
                    f"{path} holds a YAML reference ({token.value}), expected plain options: write it out."
                )
            kind = type(token).__name__
            depth += kind.endswith("StartToken") - kind.endswith("EndToken")
            if depth > 20:
                raise InputError(f"{path} is nested more than 20 levels deep, expected plain options.")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML ({' '.join(str(error).split())}): correct it.") from None
