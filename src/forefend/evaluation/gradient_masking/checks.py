"""Findings: what each of the gate's checks makes of the evidence against a robust accuracy. No torch here.

A bound on a share of the images is held against the lower end of that share's 95 % interval: so few images as the gate
attacks cannot show that one in fifty is too many, and it must not cry wolf. Each finding says how many it allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from forefend.evaluation.gradient_masking.evidence import (
    WHITE,
    CheckResult,
    Evidence,
    Number,
    averages,
    most,
    sees_defense,
)


def _at_most(share: float, n: int) -> str:
    return f"no more than {most(n, share)} of {n}, the largest count whose 95 % interval reaches down to {share:.0%}"


def _luck(evidence: Evidence) -> int:
    """How far two counts may lie apart by luck where answers are random: two standard deviations at most."""
    return math.isqrt(2 * evidence.n) if evidence.facts["random"] else 0


def _ahead(share: float, evidence: Evidence) -> str:
    """The bound on a difference of two counts, in words."""
    luck = _luck(evidence)
    return _at_most(share, evidence.n) + (f", and {luck} that luck may make, as answers are random" if luck else "")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def iterative_beats_single_step(evidence: Evidence) -> CheckResult:
    """Where one step does better than twenty, the gradient does not lead on."""
    one, many = evidence.broken("FGSM"), evidence.broken("PGD-20")
    return CheckResult(
        "iterative attacks beat a single step",
        f"FGSM leaves {_percent(evidence.accuracy('FGSM'))}, PGD-20 {_percent(evidence.accuracy('PGD-20'))}",
        f"FGSM ahead by {_ahead(0.02, evidence)}",
        len(one) - len(many) <= most(evidence.n, 0.02) + _luck(evidence),
        "the loss is not smooth where the steps go: look for rounding in the defense, and attack it through BPDA",
    )


def more_steps_hardly_help(evidence: Evidence) -> CheckResult:
    """An attack that is far from its end after twenty steps is no measure."""
    short, long = evidence.broken("PGD-20"), evidence.broken("PGD long")
    random = evidence.facts["random"]  # then each breaks some images by luck, and only how many says something
    count = len(long) - len(short) if random else len(long - short)
    return CheckResult(
        "more steps and restarts hardly help",
        f"PGD-20 leaves {_percent(1 - len(short) / evidence.n)}, more steps and restarts break "
        f"{_percent(count / evidence.n)} more",
        f"more broken: {_ahead(0.05, evidence)}",
        count <= most(evidence.n, 0.05) + _luck(evidence),
        "report the stronger attack, and add steps until the number stands still",
    )


def falls_to_chance(evidence: Evidence) -> CheckResult:
    """At a radius where any image may become gray, nobody can be right but by chance."""
    radius, chance = max(evidence.curve), 1 / evidence.classes
    right = evidence.n - len(evidence.curve[radius])
    return CheckResult(
        "accuracy falls to chance as the radius grows",
        f"PGD-20 leaves {_percent(right / evidence.n)} at {evidence.norm} {radius:g}, where any image may become gray",
        f"right: {_at_most(chance, evidence.n)}, which is chance",
        right <= most(evidence.n, chance),
        "an attack that fails where none can be resisted is broken: look for gradients that are zero, wrong or noisy",
    )


def larger_radius_hurts_more(evidence: Evidence) -> CheckResult:
    """What breaks inside a small ball breaks inside a larger one."""
    points = sorted(evidence.curve.items())
    rise = max((len(before) - len(after) for (_, before), (_, after) in pairwise(points)), default=0)
    return CheckResult(
        "a larger radius never helps the defender",
        ", ".join(f"{_percent(1 - len(lost) / evidence.n)} at {radius:g}" for radius, lost in points),
        f"rise: {_ahead(0.02, evidence)}",
        rise <= most(evidence.n, 0.02) + _luck(evidence),
        "attack with more steps at the larger radius: the one that was run does not get to the ball's far side",
    )


def black_box_does_no_better(evidence: Evidence) -> CheckResult:
    """Who sees less cannot break more."""
    count = evidence.missed("Square")
    return CheckResult(
        "black-box queries do not beat the white box",
        f"Square breaks {_percent(count / evidence.n)} of the images, which no gradient attack broke",
        _at_most(0.02, evidence.n),
        count <= most(evidence.n, 0.02),
        "the gradients are masked: trust the black-box number, and attack through BPDA or EOT",
    )


def transfer_does_no_better(evidence: Evidence) -> CheckResult:
    """Examples made for another network, or for the classifier without its defense, are weaker than its own."""
    names = [name for name in evidence.lost if name == "bypassed" or name.startswith("transfer")]
    counts = {name: evidence.missed(name) for name in names}
    said = [
        f"{name} breaks {_percent(count / evidence.n)} that no gradient attack broke" for name, count in counts.items()
    ]
    return CheckResult(
        "transferred and bypassing attacks do not beat the white box",
        "; ".join(said) or "not tried: there is no defense to bypass, and no other classifier was named as a surrogate",
        f"each: {_at_most(0.02, evidence.n)}",
        max(counts.values(), default=0) <= most(evidence.n, 0.02),
        "the gradients through the defense are worse than those round it: they are masked",
    )


def bpda_does_no_better(evidence: Evidence) -> CheckResult:
    """Where the identity's gradient is better than the defense's own, the latter is masked."""
    tried = "BPDA" in evidence.lost
    count = evidence.missed("BPDA") if tried else 0
    return CheckResult(
        "BPDA does not beat the white box",
        f"with the defense taken for the identity backwards, {_percent(count / evidence.n)} more is broken"
        if tried
        else "not tried: there is no defense to take for the identity",
        _at_most(0.02, evidence.n),
        count <= most(evidence.n, 0.02),
        "the defense hides its gradient: report the accuracy under BPDA",
    )


def noise_hurts_less(evidence: Evidence) -> CheckResult:
    """Random search is no attack."""
    count, noisy = evidence.missed("noise"), _percent(evidence.accuracy("noise"))
    return CheckResult(
        "random noise hurts less than attacks",
        f"draws of noise leave {noisy}, attacks {_percent(evidence.accuracy('none', *WHITE))}; noise alone breaks "
        f"{_percent(count / evidence.n)}",
        f"by noise alone: {_at_most(0.02, evidence.n)}",
        count <= most(evidence.n, 0.02),
        "the attack loses to chance: its gradients are wrong",
    )


def gradients_are_there(evidence: Evidence) -> CheckResult:
    """A loss that is flat to float32 gives an attack nothing to follow."""
    flows, probed = bool(evidence.facts["flows"]), int(evidence.facts["probed"])
    zero = int(evidence.facts["zero"]) if flows else probed
    return CheckResult(
        "input gradients are not zero",
        f"{_percent(zero / probed)} of the images have none"
        if flows
        else "the output hangs on no gradient of the image",
        _at_most(0.05, probed),
        zero <= most(probed, 0.05),
        "look for rounding, clamping or saturated logits; attack with the margin loss, through BPDA, or by queries",
    )


def the_loss_rises_along_the_gradient(evidence: Evidence) -> CheckResult:
    """The one thing that a gradient promises; a defense that rounds keeps it at all but the smallest distance."""
    points = sorted(evidence.landscape.items())
    said = [
        f"{_percent(along)} at {share:g} of the radius (a random step {_percent(random)})"
        for share, (along, random) in points
    ]
    rising = sum(along >= 0.8 and along > random for _, (along, random) in points)
    return CheckResult(
        "the loss rises along the gradient",
        f"share of images whose margin a step raises: {', '.join(said)}",
        "at least 80 %, and more than by a random step, at all distances but one",
        rising >= len(points) - 1,
        "the gradient is not that of the function deployed: look at hand-written backward passes and at noise",
    )


def answers_are_logits(evidence: Evidence) -> CheckResult:
    """A softmax before the loss's own flattens it."""
    return CheckResult(
        "the output is logits",
        "logits" if evidence.facts["logits"] else "probabilities, which no attack here was run on",
        "logits; the logarithms of probabilities serve as well",
        bool(evidence.facts["logits"]),
        "hand in the network without its softmax",
    )


def answers_are_repeatable(evidence: Evidence) -> CheckResult:
    """A pipeline that answers at random is attacked through its expectation, or not at all."""
    random, number = bool(evidence.facts["random"]), evidence.number
    averaged = number is None or any(averages(trial) for trial in number.trials)
    return CheckResult(
        "the output is deterministic, or was attacked through EOT",
        ("random" if random else "deterministic")
        + (", and its records hold no attack through EOT" if random and not averaged else ""),
        "deterministic, or EOT on record",
        not random or averaged,
        "evaluate it with the suite randomized",
    )


def nothing_is_optimized_inside(evidence: Evidence) -> CheckResult:
    """A defense that takes gradients while it answers is not differentiated through by a plain attack."""
    inside = bool(evidence.facts["optimizes"])
    return CheckResult(
        "no optimization runs inside",
        "it takes gradients of its own while it answers" if inside else "none seen",
        "none",
        not inside,
        "attack it with an adaptive attack that unrolls the optimization, and say so",
    )


def autoattack_agrees(evidence: Evidence) -> CheckResult:
    """The reference attack finds little that the suite did not."""
    suite, full = evidence.accuracy("none", *WHITE), evidence.accuracy("none", *WHITE, "AutoAttack")
    said = f"; it says: {' '.join(evidence.flagged)}" if evidence.flagged else ""
    return CheckResult(
        "AutoAttack is not far below the suite",
        f"the white-box suite leaves {_percent(suite)}, AutoAttack after it {_percent(full)}{said}",
        f"more broken: {_at_most(0.03, evidence.n)}",
        evidence.missed("AutoAttack") <= most(evidence.n, 0.03),
        "report AutoAttack's number, not the suite's",
    )


def records_hold_a_white_box(evidence: Evidence) -> CheckResult:
    """A number from attackers who know nothing of the defense says nothing of those who do."""
    number = evidence.number
    seen = number is None or any(sees_defense(trial) for trial in number.trials)
    said = (
        f"{len(number.trials)} attacks on record" if number else "no number on record: the gate's own attacks are all"
    )
    return CheckResult(
        "the number comes from attackers who see the defense",
        said + ("" if seen else ", none of them by the defense's gradients"),
        "at least one attack on record that follows gradients through the defense, or BPDA round it",
        seen,
        "evaluate with the suite standard",
    )


def the_number_stands(evidence: Evidence) -> CheckResult:
    """What the records leave standing, the gate's attacks must not break."""
    number = evidence.number or Number(())
    both = number.judged & evidence.images
    kept = number.standing & both
    fallen = kept & evidence.broken(*evidence.lost)
    compared = bool(both) and not evidence.facts["random"]
    said = "not compared: " + ("answers are random" if both else "no image here was judged on record")
    if compared:
        left = (_percent(len(part) / len(both)) for part in (kept, kept - fallen))
        said = "of {} images judged by both, the records leave {}, the gate's attacks beside them {}".format(
            len(both), *left
        )
    return CheckResult(
        "the number on record stands up to the gate's attacks",
        said,
        f"more broken: {_at_most(0.05, max(1, len(both)))}",
        not compared or len(fallen) <= most(len(both), 0.05),
        "the attacks on record are too weak: evaluate with the suite standard",
    )


Check = Callable[[Evidence], CheckResult]


# What each stage can say: of any network, of one that attacks can be run on, of one whose gradient they can follow.
OF_ANY: tuple[Check, ...] = (
    records_hold_a_white_box,
    answers_are_logits,
    answers_are_repeatable,
    nothing_is_optimized_inside,
    gradients_are_there,
)
OF_ATTACKED: tuple[Check, ...] = (
    the_number_stands,
    noise_hurts_less,
    black_box_does_no_better,
    transfer_does_no_better,
    bpda_does_no_better,
)
OF_DIFFERENTIABLE: tuple[Check, ...] = (
    the_loss_rises_along_the_gradient,
    iterative_beats_single_step,
    more_steps_hardly_help,
    falls_to_chance,
    larger_radius_hurts_more,
    autoattack_agrees,
)
