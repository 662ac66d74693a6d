"""Suites: lists of trials, each an evaluation protocol. `SUITES` are those with a name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Final

from forefend.checks import InputError, choose
from forefend.evaluation.access import Access, Surrogate, oblivious, queries, through_bpda, white_box
from forefend.evaluation.suites.fast import fast
from forefend.evaluation.suites.general import black_box, curve, quick, randomized, standard
from forefend.evaluation.suites.papers import (
    aaa,
    aaa_adaptive,
    aaa_carlini_wagner,
    bug_examples,
    jatp,
    robustifier,
    rtfe,
    rtfe_strong_weak,
    transfer,
)
from forefend.evaluation.trial import Cascade, Suite, Terms, Trial, with_copies

SUITES: Final[dict[str, Callable[[Terms], Suite]]] = {
    "quick": lambda terms: [trial for threat in terms.threats for trial in quick(threat)],
    "fast": lambda terms: fast(terms.threats, terms.classes),
    "standard": lambda terms: standard(terms.threats, terms.classes),
    "randomized": lambda terms: randomized(terms.threats, terms.classes),
    "black-box": lambda terms: black_box(terms.threats, terms.surrogates, terms.scores),
    "curve": lambda terms: curve(terms.threats),
    "rtfe": lambda terms: rtfe(terms.threats),
    "rtfe-strong-weak": lambda terms: rtfe_strong_weak(terms.threats),
    "jatp": lambda terms: jatp(terms.threats, terms.classes),
    "aaa": lambda terms: aaa(terms.threats),
    "transfer": lambda terms: transfer(terms.threats, terms.surrogates),
    "robustifier": lambda terms: robustifier(terms.threats),
}


def suite_named(name: str) -> Callable[[Terms], Suite]:
    """Return what makes the suite called `name`.

    Raises:
        InputError: there is none; the message suggests one.
    """
    if name not in SUITES and difflib.get_close_matches(name.lower(), ["autoattack", "auto-attack"], cutoff=0.7):
        raise InputError(f"There is no suite called {name!r}: did you mean 'standard' (AutoAttack)?")
    return choose(name, SUITES, "suite")


__all__ = [
    "SUITES",
    "Access",
    "Cascade",
    "Suite",
    "Surrogate",
    "Terms",
    "Trial",
    "aaa",
    "aaa_adaptive",
    "aaa_carlini_wagner",
    "black_box",
    "bug_examples",
    "curve",
    "fast",
    "jatp",
    "oblivious",
    "queries",
    "quick",
    "randomized",
    "robustifier",
    "rtfe",
    "rtfe_strong_weak",
    "standard",
    "through_bpda",
    "transfer",
    "white_box",
    "with_copies",
]


def __dir__() -> list[str]:
    return __all__
