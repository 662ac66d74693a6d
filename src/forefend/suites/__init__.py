"""Suites: named lists of trials, each an evaluation protocol."""

from __future__ import annotations

from ..trial import Averaged, Suite, Surrogate, Trial, labels, oblivious, through_bpda, white_box
from .papers import robustifier, rtfe, rtfe_strong_weak
from .quick import curve, quick

__all__ = [
    "Averaged",
    "Suite",
    "Surrogate",
    "Trial",
    "curve",
    "labels",
    "oblivious",
    "quick",
    "robustifier",
    "rtfe",
    "rtfe_strong_weak",
    "through_bpda",
    "white_box",
]
