"""The headline of a page: which accuracy stands for each classifier, and how strongly it was attacked."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from forefend.evaluation.results import CLEAN, WORST, Result, column_title, norm_and_radius
from forefend.report.evidence.evaluations import FoundEvaluation
from forefend.report.evidence.sources import Sources
from forefend.report.page.blocks import Share

AUTOATTACK, FAST, OTHER = 3, 2, 1  # how strong the strongest attack of an evaluation is
_ACCESS = re.compile(r"\[([^\]]*)\]")
_EVERYTHING = "white-box attacker, who knows the whole model"
_ELSEWHERE = "black-box attacker, who crafts images on other classifiers"
KNOWLEDGE = {
    "white_box": _EVERYTHING,
    "through_bpda": _EVERYTHING,
    "together": _EVERYTHING,
    "oblivious": "gray-box attacker, who knows the classifier and not the defense",
    "black_box": "black-box attacker, who sees answers alone",
    "transfer": _ELSEWHERE,
    "crafted": _ELSEWHERE,
}


@dataclass(frozen=True)
class Headline:
    """The accuracies of one classifier in the threat model of the verdict.

    Args:
        classifier: its name.
        seen: whether it was a guide of the defense.
        robust: accuracy under the worst attack of each image; behind the defense, if there is one.
        clean: accuracy on clean images, likewise.
        robust_alone: the same without the defense; None where it was not measured, or there is no defense.
        clean_alone: likewise.
    """

    classifier: str
    seen: bool
    robust: Share
    clean: Share
    robust_alone: Share | None = None
    clean_alone: Share | None = None


@dataclass(frozen=True)
class Verdict:
    """The cell of the run that its verdict is about.

    Args:
        evaluation: the evaluation.
        norm: of the threat model.
        radius: likewise, in [0, 1]-pixel units.
        attacks: the titles of its attacks.
        defended: whether a defense is in front.
        headlines: one for each classifier, the weakest first.
    """

    evaluation: FoundEvaluation
    norm: str
    radius: float
    attacks: Sequence[str]
    defended: bool
    headlines: Sequence[Headline]

    @property
    def threat(self) -> str:
        """The threat model, such as `Linf 8/255`."""
        return column_title(self.norm, self.radius)

    @property
    def weakest(self) -> Headline:
        """The classifier with the lowest robust accuracy."""
        return self.headlines[0]

    @property
    def strength(self) -> int:
        """How strong its strongest attack is: `AUTOATTACK`, `FAST` or `OTHER`."""
        return strength_of(self.evaluation, self.norm, self.radius)

    @property
    def knowledge(self) -> str:
        """What the strongest attacker of the evaluation knows, in words."""
        return KNOWLEDGE[min(accesses(self.evaluation.trials) or ["white_box"], key=list(KNOWLEDGE).index)]


def verdict_of(sources: Sources) -> Verdict | None:
    """Choose the cell that stands for a run; None where nothing was attacked.

    It is the threat model of training, if that was measured; among several evaluations of it the strongest attack,
    then the most images. Else the largest radius below it, in its norm.
    """
    cells = [
        (one, norm, radius)
        for one in sources.evaluations
        for norm, radius in dict.fromkeys((result.norm, result.radius) for result in one.results if result.norm)
    ]
    if not cells:
        return None
    norm, trained = norm_and_radius(sources.threat) or ("", math.inf)

    def rank(cell: tuple[FoundEvaluation, str, float]) -> tuple[float, ...]:
        one, own, at = cell
        same = own == norm or not norm
        below = same and at <= trained + 1e-9
        return (
            same and abs(at - trained) < 1e-9,
            below,
            strength_of(one, own, at),
            at if below else -at,
            max(result.n for result in one.results),
        )

    best, norm, at = max(cells, key=rank)
    return _verdict(best, norm, at)


def strength_of(one: FoundEvaluation, norm: str, radius: float) -> int:
    """Return how strong the strongest attack in a threat model is: `AUTOATTACK`, `FAST` or `OTHER`."""
    names = {result.attack for result in one.results if (result.norm, result.radius) == (norm, radius)}
    if any(name.startswith("AutoAttack") for name in names):
        return AUTOATTACK
    return FAST if "fast" in names else OTHER


def accesses(trials: Sequence[str]) -> list[str]:
    """Return what the attackers of some trials know, as keys of `KNOWLEDGE`."""
    found = [access for trial in trials for access in _ACCESS.findall(trial)]
    words = [re.sub(r"^eot \d+ ", "", access).split(" ")[0] for access in found]
    return [word for word in dict.fromkeys(words) if word in KNOWLEDGE]


def share_of(result: Result, bold: bool = False) -> Share:
    """Return the accuracy of a result as a cell."""
    return Share(result.accuracy, result.low, result.high, result.n, bold)


def _verdict(one: FoundEvaluation, norm: str, radius: float) -> Verdict:
    here = [result for result in one.results if (result.norm, result.radius) == (norm, radius)]
    attacks = [name for name in dict.fromkeys(result.attack for result in here) if name != WORST]
    defended = any(result.defended for result in here)
    headlines = []
    for name in dict.fromkeys(result.classifier for result in here if result.defended == defended):
        shown = {alone: _shares(one, name, alone, norm, radius) for alone in (defended, False)}
        robust, clean, seen = shown[defended]
        before = shown[False] if defended else (None, None, False)
        if robust and clean:
            headlines.append(Headline(name, seen, robust, clean, *before[:2]))
    return Verdict(one, norm, radius, attacks, defended, sorted(headlines, key=lambda one: one.robust.value))


def _shares(
    one: FoundEvaluation, name: str, defended: bool, norm: str, radius: float
) -> tuple[Share | None, Share | None, bool]:
    own = [result for result in one.results if (result.classifier, result.defended) == (name, defended)]
    here = [result for result in own if (result.norm, result.radius) == (norm, radius)]
    worst = next(
        (result for result in here if result.attack == WORST), min(here, key=lambda r: r.accuracy, default=None)
    )
    clean = next((result for result in own if result.attack == CLEAN), None)
    return (
        share_of(worst) if worst else None,
        share_of(clean) if clean else None,
        any(result.seen for result in own),
    )
