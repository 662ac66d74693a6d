"""Findings: what the gate's checks make of the evidence against a robust accuracy. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from .interval import wilson

WHITE = ("FGSM", "PGD-20", "PGD-20 margin", "PGD-100 x3", "APGD-100")  # the gate's own white-box trials


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        check: its name.
        measured: what was measured, in words and numbers.
        bound: what it must be.
        passed: whether it is.
        advice: what to do where it is not.
    """

    check: str
    measured: str
    bound: str
    passed: bool
    advice: str


@dataclass(frozen=True)
class Evidence:
    """All that the checks look at; shares are of all images.

    Args:
        n: how many images.
        classes: how many classes.
        norm: of the threat model, such as `Linf`.
        lost: dataset indices of the images that each trial broke, by its name; misclassified ones are among them.
        curve: the same for PGD at each radius.
        recorded: identities of the trials behind the number in question; None where it is this gate's own.
        facts: what the probes found.
        flagged: what AutoAttack's own checks say.
    """

    n: int
    classes: int
    norm: str
    lost: Mapping[str, frozenset[int]]
    curve: Mapping[float, frozenset[int]]
    recorded: Sequence[str] | None
    facts: Mapping[str, float]
    flagged: Sequence[str] = field(default_factory=tuple)

    def accuracy(self, *names: str) -> float:
        """Share of images that none of these trials broke."""
        return 1 - len(self.broken(*names)) / self.n

    def broken(self, *names: str) -> frozenset[int]:
        """The images that any of these trials broke."""
        return frozenset().union(*(self.lost[name] for name in names if name in self.lost))

    def white(self) -> frozenset[int]:
        """The images that any white-box trial broke."""
        return self.broken(*WHITE)

    def missed(self, name: str) -> float:
        """Share of images that this trial broke and no white-box one did."""
        return len(self.lost[name] - self.white()) / self.n


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def iterative_beats_single_step(evidence: Evidence) -> Finding:
    """Where one step does better than twenty, the gradient does not lead on."""
    one, many = evidence.accuracy("FGSM"), evidence.accuracy("PGD-20")
    return Finding(
        "iterative attacks beat a single step",
        f"FGSM leaves {_percent(one)}, PGD-20 {_percent(many)}",
        "PGD-20 leaves no more than FGSM and 2 points",
        many <= one + 0.02,
        "the loss is not smooth where the steps go: look for rounding in the defence, and attack it through BPDA",
    )


def more_steps_hardly_help(evidence: Evidence) -> Finding:
    """An attack that is far from its end after twenty steps is no measure."""
    few, many = evidence.accuracy("PGD-20"), evidence.accuracy("PGD-20", "PGD-100 x3")
    return Finding(
        "more steps and restarts hardly help",
        f"PGD-20 leaves {_percent(few)}, with 100 steps and 3 restarts {_percent(many)}",
        "at most 5 points apart",
        few - many <= 0.05,
        "report the stronger attack, and add steps until the number stands still",
    )


def falls_to_chance(evidence: Evidence) -> Finding:
    """At a radius where any image may become grey, nobody can be right but by chance."""
    radius = max(evidence.curve)
    right = evidence.n - len(evidence.curve[radius])
    low, _ = wilson(right, evidence.n)
    return Finding(
        "accuracy falls to chance as the radius grows",
        f"PGD-20 leaves {_percent(right / evidence.n)} at {evidence.norm} {radius:g}",
        f"chance, {_percent(1 / evidence.classes)}, or below it",
        low <= 1 / evidence.classes,
        "an attack that fails where none can be resisted is broken: look for gradients that are zero, wrong or noisy",
    )


def larger_radius_hurts_more(evidence: Evidence) -> Finding:
    """What breaks inside a small ball breaks inside a larger one."""
    points = sorted((radius, 1 - len(lost) / evidence.n) for radius, lost in evidence.curve.items())
    rise = max((after - before for (_, before), (_, after) in pairwise(points)), default=0.0)
    return Finding(
        "a larger radius never helps the defender",
        ", ".join(f"{_percent(accuracy)} at {radius:g}" for radius, accuracy in points),
        "no rise above 2 points",
        rise <= 0.02,
        "attack with more steps at the larger radius: the one that was run does not get to the ball's far side",
    )


def black_box_does_no_better(evidence: Evidence) -> Finding:
    """Who sees less cannot break more."""
    share = evidence.missed("Square")
    return Finding(
        "black-box queries do not beat the white box",
        f"Square breaks {_percent(share)} of the images that no gradient attack broke",
        "at most 2 %",
        share <= 0.02,
        "the gradients are masked: trust the black-box number, and attack through BPDA or EOT",
    )


def transfer_does_no_better(evidence: Evidence) -> Finding:
    """Examples made for another network, or for the classifier without its defence, are weaker than its own."""
    names = [name for name in evidence.lost if name == "bypassed" or name.startswith("transfer")]
    shares = {name: evidence.missed(name) for name in names}
    return Finding(
        "transferred and bypassing attacks do not beat the white box",
        "; ".join(f"{name} breaks {_percent(share)} that no gradient attack broke" for name, share in shares.items()),
        "at most 2 % each",
        max(shares.values()) <= 0.02,
        "the gradients through the defence are worse than those round it: they are masked",
    )


def bpda_does_no_better(evidence: Evidence) -> Finding:
    """Where the identity's gradient is better than the defence's own, the latter is masked."""
    share = evidence.missed("BPDA")
    return Finding(
        "BPDA does not beat the white box",
        f"with the defence taken for the identity backwards, {_percent(share)} more is broken",
        "at most 2 %",
        share <= 0.02,
        "the defence hides its gradient: report the accuracy under BPDA",
    )


def noise_hurts_less(evidence: Evidence) -> Finding:
    """Random search is no attack."""
    share, noisy = evidence.missed("noise"), evidence.accuracy("noise")
    white = evidence.accuracy(*WHITE)
    return Finding(
        "random noise hurts less than attacks",
        f"ten draws of noise leave {_percent(noisy)}, attacks {_percent(white)}; noise alone breaks {_percent(share)}",
        "noise alone breaks at most 2 %",
        share <= 0.02,
        "the attack loses to chance: its gradients are wrong",
    )


def gradients_are_there(evidence: Evidence) -> Finding:
    """A loss that is flat to float32 gives an attack nothing to follow."""
    share = evidence.facts.get("zero", 1.0)
    return Finding(
        "input gradients are not zero",
        f"{_percent(share)} of the images have none" if evidence.facts["flows"] else "the network gives no gradient",
        "at most 5 %",
        share <= 0.05,
        "look for rounding, clamping or saturated logits; attack with the margin loss, through BPDA, or by queries",
    )


def the_loss_rises_along_the_gradient(evidence: Evidence) -> Finding:
    """The one thing that a gradient promises."""
    along, random = evidence.facts["uphill"], evidence.facts["random uphill"]
    return Finding(
        "the loss rises along the gradient",
        f"a small step along it raises {_percent(along)} of the images' margins, a random one {_percent(random)}",
        "at least 80 %, and more than a random step",
        along >= 0.8 and along > random,
        "the gradient is not that of the function deployed: look at hand-written backward passes and at noise",
    )


def answers_are_logits(evidence: Evidence) -> Finding:
    """A softmax before the loss's own flattens it."""
    return Finding(
        "the output is logits",
        "logits" if evidence.facts["logits"] else "probabilities or their logarithms",
        "logits",
        bool(evidence.facts["logits"]),
        "hand in the network without its softmax",
    )


def answers_are_repeatable(evidence: Evidence) -> Finding:
    """A pipeline that answers at random is attacked through its expectation, or not at all."""
    random, recorded = bool(evidence.facts["random"]), evidence.recorded
    averaged = recorded is None or any("eot" in trial for trial in recorded)
    return Finding(
        "the output is deterministic, or was attacked through EOT",
        ("random" if random else "deterministic")
        + (", and its records hold no attack through EOT" if random and not averaged else ""),
        "deterministic, or EOT on record",
        not random or averaged,
        "evaluate it with the suite randomised",
    )


def nothing_is_optimised_inside(evidence: Evidence) -> Finding:
    """A defence that takes gradients while it answers is not differentiated through by a plain attack."""
    inside = bool(evidence.facts["optimises"])
    return Finding(
        "no optimisation runs inside",
        "it takes gradients of its own while it answers" if inside else "none seen",
        "none",
        not inside,
        "attack it with an adaptive attack that unrolls the optimisation, and say so",
    )


def autoattack_agrees(evidence: Evidence) -> Finding:
    """The reference attack finds little that the suite did not."""
    suite, full = evidence.accuracy(*WHITE), evidence.accuracy("AutoAttack")
    said = f"; it says: {' '.join(evidence.flagged)}" if evidence.flagged else ""
    return Finding(
        "AutoAttack is not far below the suite",
        f"the white-box suite leaves {_percent(suite)}, AutoAttack after it {_percent(full)}{said}",
        "at most 5 points below",
        suite - full <= 0.05,
        "report AutoAttack's number, not the suite's",
    )


def records_hold_a_white_box(evidence: Evidence) -> Finding:
    """A number from attackers who know nothing of the defence says nothing of those who do."""
    recorded = evidence.recorded
    seen = recorded is None or any("[white_box]" in trial or "[eot" in trial for trial in recorded)
    what = "no number in question" if recorded is None else f"{len(recorded)} attacks on record"
    return Finding(
        "the number comes from attackers who see the defence",
        what + ("" if seen else ", none of them white-box"),
        "at least one white-box attack on record",
        seen,
        "evaluate with the suite standard",
    )


Check = Callable[[Evidence], Finding]
ALWAYS: tuple[Check, ...] = (
    records_hold_a_white_box,
    answers_are_logits,
    answers_are_repeatable,
    nothing_is_optimised_inside,
    gradients_are_there,
)
CHECKS: tuple[Check, ...] = (
    *ALWAYS,
    the_loss_rises_along_the_gradient,
    noise_hurts_less,
    iterative_beats_single_step,
    more_steps_hardly_help,
    falls_to_chance,
    larger_radius_hurts_more,
    black_box_does_no_better,
    transfer_does_no_better,
    bpda_does_no_better,
    autoattack_agrees,
)
