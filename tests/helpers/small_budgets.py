"""Small numbers of steps and queries, with which pages of the documentation run in seconds."""

from __future__ import annotations

from functools import partial

import pytest

from forefend.attacks.auto_pgd import APGD
from forefend.attacks.decision_based import Boundary, HopSkipJump
from forefend.evaluation.gradient_masking.attack_suite import CheckBudget
from forefend.evaluation.suites import general

SMALL_CHECKS = CheckBudget(steps=20, restarts=1, queries=20, reference=lambda threat, *_: APGD(threat, 10))


def ask_little(monkeypatch: pytest.MonkeyPatch, queries: int = 20) -> None:
    """Give the attacks of the suite black-box few queries."""
    monkeypatch.setattr(general, "QUERIES", queries)
    for attack in (HopSkipJump, Boundary):
        monkeypatch.setattr(general, attack.__name__, partial(attack, queries=queries))
