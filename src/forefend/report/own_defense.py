"""Whether what was measured in a run is of the run's own defense. This module does not need torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from forefend.checks import InputError
from forefend.models.saved_identity import identity_in, verified_identity_in
from forefend.runtime.files import read_versioned


@dataclass(frozen=True)
class OwnDefense:
    """The defense that a run trained.

    Args:
        run: the folder of the run.
    """

    run: Path

    @cached_property
    def identity(self) -> str:
        """Its identity, for which its weights are read; empty without one.

        Raises:
            InputError: its files are damaged or missing.
        """
        return identity_in(self.run) if (self.run / "defense.json").exists() else ""

    def contradiction(self, what: str, defenses: Iterable[str]) -> str:
        """Return why something does not count for this run; empty where it does, or where this is not known.

        Args:
            what: the start of the sentence, as in `runs/a/evaluations/b measured`.
            defenses: the identities of what was measured.

        Raises:
            InputError: the files of the defense are damaged or missing.
        """
        named = {one for one in defenses if one}
        told = contradiction(what, named, self.identity) if named else ""
        if told:
            verified_identity_in(self.run)  # damaged weights are no other defense
        return told

    def doubt(self, evaluation: Path) -> str:
        """Return why numbers behind a defense cannot be compared with that of the run; empty where they were.

        Args:
            evaluation: the folder that they are from.

        Raises:
            InputError: a file is damaged.
        """
        if not any((self.run / name).exists() for name in ("config.json", "defense.json")):  # no run, and no defense
            return ""
        where = "" if evaluation == self.run else f" of {evaluation.relative_to(self.run).as_posix()}"
        if not defenses_of(evaluation):
            return f"the numbers{where} may be of another defense: no evaluation.json names the one that was measured"
        return "" if self.identity else f"the numbers{where} are of a defense, and this run holds none to compare"


def contradiction(what: str, defenses: Iterable[str], own: str) -> str:
    """Return a sentence where other defenses than `own` are named; empty where none is, or `own` is not known."""
    others = {one for one in defenses if one} - {own}
    return (
        f"{what} another defense ({', '.join(sorted(others))}) than that of this run ({own})." if own and others else ""
    )


def defenses_of(evaluation: Path) -> set[str]:
    """Return the identities of the defenses that an evaluation says it measured; older versions name none.

    Raises:
        InputError: its `evaluation.json` is damaged.
    """
    path = evaluation / "evaluation.json"
    if not path.exists():
        return set()
    try:
        counted = read_versioned(path).get("about", {}).get("counted", [])
        return {str(model["defense"]) for model in counted if model["defense"]}
    except (LookupError, TypeError, AttributeError):
        raise InputError(f"{path} is not of an evaluation: evaluate again to write it anew.") from None
