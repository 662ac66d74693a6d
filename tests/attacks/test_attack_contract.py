"""The contract of every attack of the table `forefend.attacks.ATTACKS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import forefend.attacks
from forefend.attacks import (
    APGD,
    ATTACKS,
    PGD,
    APGDRotation,
    AutoAttack,
    Boundary,
    CarliniWagner,
    DiverseInput,
    FrankWolfeWasserstein,
    GaussianBlur,
    HopSkipJump,
    Iterative,
    Momentum,
    Noise,
    ProjectedWasserstein,
    Square,
    at_random,
    bugs,
    di_fgsm,
    from_x,
    never,
)
from forefend.attacks.base import State, at_step
from forefend.attacks.n_fgsm import NFGSM
from forefend.checks import InputError
from forefend.losses import ce, dlr, margin
from forefend.models.defended import pipelines
from forefend.models.fingerprint import state_digest
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf
from forefend.threat_models.wasserstein import Wasserstein

LINF, EUCLID, EARTH = Linf(0.1), L2(1.0), Wasserstein(0.3, window=3)

# Settings that keep the tests of a slow attack fast; a new attack runs with its defaults.
FAST: dict[str, dict[str, Any]] = {
    "apgd": {"steps": 30},
    "apgd-rotation": {"classes": 4, "lengths": (6, 9), "repeats": 2},
    "autoattack": {"classes": 4, "queries": 5},
    "boundary": {"queries": 100},
    "cw": {"searches": 3, "iterations": 30, "lr": 0.05},
    "hop-skip-jump": {"queries": 200, "samples": 20},
    "square": {"steps": 30, "horizon": 30},
    "wasserstein": {"steps": 5, "step_size": 0.02},
    "wasserstein-fw": {"steps": 5},
}
OUTSIDE = {"n-fgsm"}  # its images leave the threat model
ONLY_WHOLE_BATCHES = {"autoattack"}  # pyautoattack draws random numbers for the whole batch
LONG = {"autoattack"}  # seconds each: most of its cases are slow tests
NO_ASCENT = {"noise"}
NO_GRADIENT = ("square", "boundary", "hop-skip-jump")


def supported(name: str) -> Iterator[tuple[str, Any]]:
    """The named attack in each threat model that it supports."""
    threats: tuple[ThreatModel, ...] = (EARTH,) if name.startswith("wasserstein") else (LINF, EUCLID)
    if name == "autoattack":
        threats = (Linf(0.03),)  # its Square cannot tile such small images in L2
    for threat in threats:
        try:
            attack = ATTACKS[name](threat)
        except InputError:
            continue
        yield f"{name} {threat.norm}", replace(attack, **FAST.get(name, {}))


CASES: dict[str, Any] = {case: attack for name in ATTACKS for case, attack in supported(name)}
ITERATIVE: dict[str, Iterative] = {case: attack for case, attack in CASES.items() if isinstance(attack, Iterative)}


def cases_of(*names: str) -> list[pytest.ParameterSet]:
    """All cases but those of the named attacks; those of slow attacks are marked."""
    kept = [case for case in CASES if case.split()[0] not in names]
    return [pytest.param(case, marks=[pytest.mark.slow] * (case.split()[0] in LONG)) for case in kept]


# For each class an attack, and other values of each of its fields, all of which change `str()`.
SETTINGS: list[tuple[Any, dict[str, list[Any]]]] = [
    (
        PGD(LINF, 6, 0.03),
        {"threat": [L2(0.1)], "steps": [7], "step_size": [0.02], "loss": [margin], "start": [from_x]},
    ),
    (APGD(LINF, 30), {"threat": [L2(0.1)], "steps": [31], "loss": [dlr], "start": [from_x], "is_adv": [never]}),
    (Square(LINF, 30), {"threat": [L2(0.1)], "steps": [31], "loss": [ce], "area": [0.3], "horizon": [30]}),
    (
        Momentum(LINF, 6, 0.03),
        {
            "threat": [L2(0.1)],
            "steps": [7],
            "step_size": [0.02],
            "decay": [0.5],
            "loss": [margin],
            "input_transform": [DiverseInput(), DiverseInput(0.7), DiverseInput(least=0.8)],
            "gradient_filter": [GaussianBlur(), GaussianBlur(7), GaussianBlur(reach=2)],
        },
    ),
    (
        CarliniWagner(EUCLID),
        {
            "threat": [L2(0.2)],
            "searches": [2],
            "iterations": [7],
            "lr": [0.02],
            "weight": [0.5],
            "confidence": [1.0],
            "checks": [5],
        },
    ),
    (
        ProjectedWasserstein(EARTH, 5, 0.02),
        {"threat": [Wasserstein(0.1)], "steps": [6], "step_size": [0.2], "loss": [margin], "start": [at_random]},
    ),
    (
        FrankWolfeWasserstein(EARTH, 5),
        {"threat": [Wasserstein(0.1)], "steps": [6], "entropy": [0.2], "loss": [margin], "start": [at_random]},
    ),
    (
        APGDRotation(LINF, 4, (6, 9), 2),
        {"threat": [L2(0.1)], "classes": [3], "lengths": [(6,), (9, 6)], "repeats": [1]},
    ),
    (AutoAttack(LINF, 10), {"threat": [L2(0.1)], "classes": [3], "version": ["rand"], "queries": [7]}),
    (NFGSM(LINF), {"threat": [Linf(0.2)], "noise": [1.0], "relative_step": [1.25], "loss": [margin]}),
    (Noise(LINF), {"threat": [Linf(0.2)]}),
    (HopSkipJump(LINF), {"threat": [L2(0.1)], "queries": [7], "samples": [9], "gamma": [0.5]}),
    (Boundary(LINF), {"threat": [L2(0.1)], "queries": [7], "spherical_step": [0.2], "source_step": [0.1]}),
]


class Linear(nn.Module):
    """Four logits, linear in the pixels in eval mode only."""

    def __init__(self, channels: int = 3, size: int = 6) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(channels), nn.Dropout(0.5)
        generator = torch.Generator().manual_seed(channels)
        self.weight = nn.Parameter(torch.randn(4, channels, size, size, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        # Not a matrix product, whose rounding depends on the batch size.
        return (self.drop(self.norm(x))[:, None] * self.weight).flatten(2).sum(2) / 4


def images(count: int, channels: int = 3, size: int = 6) -> Tensor:
    return 0.2 + 0.6 * torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(count))


def problem(count: int, channels: int = 3) -> tuple[Linear, Tensor, Tensor, KeyedRNG]:
    f, x = Linear(channels).eval(), images(count, channels)
    return f, x, f(x).argmax(1), KeyedRNG(torch.arange(count) + 5, seed=2, purpose="contract")


@pytest.mark.parametrize("name", cases_of(*OUTSIDE))
@pytest.mark.parametrize(("count", "channels"), [(1, 1), (1, 3), (4, 1), (4, 3)])
def test_attack_stays_inside_its_threat_model(name: str, count: int, channels: int) -> None:
    attack = CASES[name]
    f, x, y, rng = problem(count, channels)
    before = x.clone()
    x_adv = attack(f, x, y, rng=rng)
    assert attack.threat.allows(x_adv, x).all()
    assert (x_adv.shape, x_adv.dtype, x_adv.requires_grad) == (x.shape, x.dtype, False)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", cases_of(*NO_ASCENT, *LONG))
def test_attack_raises_the_loss_of_a_linear_classifier(name: str) -> None:
    attack = CASES[name]
    f, x, y, rng = problem(8)
    before, after = (margin(f(batch), y) for batch in (x, attack(f, x, y, rng=rng)))
    assert (after >= before).all()
    assert (after > before + 0.01).sum() >= 6


@pytest.mark.parametrize("name", cases_of())
def test_attack_with_equal_rng_repeats_its_result(name: str) -> None:
    attack = CASES[name]
    f, x, y, rng = problem(4)
    once = attack(f, x, y, rng=rng)
    torch.manual_seed(12345)
    assert torch.equal(attack(f, x, y, rng=rng), once)


@pytest.mark.parametrize("name", cases_of())
def test_attack_leaves_the_generator_of_torch_unchanged(name: str) -> None:
    f, x, y, rng = problem(2)
    before = torch.get_rng_state()
    CASES[name](f, x, y, rng=rng)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", cases_of(*ONLY_WHOLE_BATCHES))
def test_result_of_an_image_is_independent_of_its_batch(name: str) -> None:
    attack = CASES[name]
    f, x, y, rng = problem(5)
    whole = attack(f, x, y, rng=rng)
    for rows in ([4, 2, 0], [1]):
        part = torch.tensor(rows)
        got = attack(f, x[part], y[part], rng=rng.select(part))
        torch.testing.assert_close(got, whole[part], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_attack_leaves_the_classifier_unchanged(name: str) -> None:
    """Buffers, modes, gradient flags and gradients; the attack runs in eval mode."""
    f, x, y, rng = problem(3)
    attack = CASES[name]
    expected = attack(f, x, y, rng=rng)
    f.train()
    f.norm.eval()
    f.norm.weight.requires_grad = False
    f.weight.grad = torch.full_like(f.weight, 7.0)
    before = state_digest(f)
    assert torch.equal(attack(f, x, y, rng=rng), expected)
    assert state_digest(f) == before
    assert (f.weight.grad == 7).all()
    assert f.norm.bias.grad is None


class NaNGradient(nn.Module):
    """The logits of `Linear`; the gradient of images brighter than 0.7 is NaN, as that of sqrt at 0 times 0."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = Linear()

    def forward(self, x: Tensor) -> Tensor:
        bright = x.mean((1, 2, 3), keepdim=True) > 0.7
        root = torch.where(bright, 0 * x, x + 1).sqrt().flatten(1).sum(1, keepdim=True)
        logits: Tensor = self.linear(x) + 0 * root
        return logits


class NaNLogits(NaNGradient):
    """The logits of `Linear`, NaN for images brighter than 0.7."""

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).masked_fill((x.mean((1, 2, 3)) > 0.7)[:, None], torch.nan)


@pytest.mark.parametrize("kind", [NaNGradient, NaNLogits])
@pytest.mark.parametrize("name", cases_of(*NO_ASCENT))
def test_nan_loss_or_gradient_is_refused_with_the_image(name: str, kind: type[NaNGradient]) -> None:
    """Sign steps would turn NaN into no step, and the image would pass for robust."""
    if kind is NaNGradient and name.startswith(NO_GRADIENT):
        pytest.skip("it uses no gradient")
    f, (_, x, _, rng) = kind().eval(), problem(4)
    x[2] += 0.9 - x[2].mean()
    y = f.linear(x).argmax(1)
    with pytest.raises(InputError, match=r"The (gradient|loss|logits) in .*image 7 of the data"):
        CASES[name](f, x.clamp(0, 1), y, rng=rng)


@pytest.mark.parametrize("name", cases_of(*NO_ASCENT, *LONG))
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_narrow_integer_labels_equal_int64_labels(name: str, dtype: torch.dtype) -> None:
    f, x, y, rng = problem(3)
    assert torch.equal(CASES[name](f, x, y.to(dtype), rng=rng), CASES[name](f, x, y, rng=rng))


@pytest.mark.parametrize("name", cases_of(*NO_ASCENT))
@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (nn.functional.one_hot(torch.tensor([0, 1, 2]), 4), "one-hot"),
        (torch.tensor([0.0, 1.0, 2.0]), "float32"),
        (torch.tensor([0, 1]), "2 labels for 3 images"),
        (torch.tensor([0, 1, 4]), "0 … 4, expected 0 … 3"),
        (torch.tensor([0, -1, 3]), "-1 … 3"),
        ([0, 1, 2], "list"),
    ],
)
def test_labels_that_are_no_class_numbers_are_refused(name: str, labels: Any, words: str) -> None:
    f, x, _, rng = problem(3)
    with pytest.raises(InputError, match=words):
        CASES[name](f, x, labels, rng=rng)


@pytest.mark.parametrize("name", cases_of())
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_attack_inside_no_grad_equals_the_attack_outside(name: str, context: Callable[[], Any]) -> None:
    f, x, y, rng = problem(2)
    expected = CASES[name](f, x, y, rng=rng)
    with context():
        got = CASES[name](f, x.clone(), y.clone(), rng=rng)
    assert torch.equal(got, expected)


def test_pairs_of_narrow_labels_equal_int64_labels() -> None:
    f, x, y, rng = problem(3)
    attack, views = bugs(LINF, 3), pipelines(nn.Identity(), [f, f])
    pair = ((y + 1) % 4, y)
    narrow = tuple(labels.to(torch.int32) for labels in pair)
    assert torch.equal(attack(views, x, narrow, rng=rng), attack(views, x, pair, rng=rng))


def test_model_without_gradient_is_refused_in_a_sentence() -> None:
    f, x, y, _ = problem(2)
    with pytest.raises(InputError, match=r"no gradient.*PGD-20.*bpda"):
        PGD(LINF)(lambda batch: f(batch.detach()), x, y)


@pytest.mark.parametrize(("attack", "changes"), SETTINGS, ids=[type(attack).__name__ for attack, _ in SETTINGS])
def test_every_setting_changes_the_identity(attack: Any, changes: dict[str, list[Any]]) -> None:
    assert changes.keys() == {field.name for field in fields(attack)}
    others = [replace(attack, **{name: value}) for name, values in changes.items() for value in values]
    assert len({str(other) for other in [attack, *others]}) == len(others) + 1
    assert str(replace(attack)) == str(attack)
    assert all(" at 0x" not in str(other) for other in [attack, *others])


def test_attacks_have_different_identities() -> None:
    assert len({str(attack) for attack in CASES.values()}) == len(CASES)


def test_identities_are_equal_in_every_process(python: Callable[..., str]) -> None:
    program = (
        "from forefend.attacks import APGD, Square, di_fgsm; t = 'Linf:8/255'; "
        "print(APGD(t, 101), Square(t, 5000), di_fgsm(t, 10, 0.01), sep=chr(10))"
    )
    threat = Linf("8/255")
    printed = python(program).splitlines()
    assert printed == [
        "APGD-101(Linf:8/255, loss=ce, start=to_the_edge, lost=misclassified)",
        "Square-5000(Linf:8/255, loss=margin, area=0.8, horizon=10000)",
        "Momentum-10(Linf:8/255, step=0.01, decay=0, loss=ce, shown=diverse 0.5 from 0.9, smooth=unfiltered)",
    ]
    assert printed == [str(APGD(threat, 101)), str(Square(threat, 5000)), str(di_fgsm(threat, 10, 0.01))]


@pytest.mark.parametrize("name", ITERATIVE)
def test_steps_equal_the_number_of_classifier_calls(name: str) -> None:
    f, x, y, rng = problem(2)
    sizes = []

    def counting(batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        return f(batch)

    ITERATIVE[name](counting, x, y, rng=rng)
    assert sizes == [2] * ITERATIVE[name].steps


@pytest.mark.parametrize("name", ITERATIVE)
def test_channels_last_images_give_the_same_result(name: str) -> None:
    f, x, y, rng = problem(4)
    plain = ITERATIVE[name](f, x, y, rng=rng)
    channels_last = ITERATIVE[name](f, x.to(memory_format=torch.channels_last), y, rng=rng)
    torch.testing.assert_close(channels_last, plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ITERATIVE)
def test_rows_can_join_and_leave_a_running_batch(name: str) -> None:
    """Images at different steps and restarts share a batch, and the results equal those of separate batches."""
    attack = ITERATIVE[name]
    f, x, y, rng = problem(6)
    f, x = f.double(), x.double()
    restarts = torch.tensor([0, 0, 2, 0, 1, 0])
    rng = rng.fold_in(restart=restarts)
    expected = attack(f, x, y, rng=rng)
    joins = torch.tensor([0, 0, 0, 3, 1, 2])  # the iteration in which each row begins
    finished, rows, state = torch.zeros_like(x), torch.empty(0, dtype=torch.int64), None
    for when in range(int(joins.max()) + attack.steps):
        new = (joins == when).nonzero().squeeze(1)
        if len(new):
            rows, state = torch.cat([rows, new]), joined(state, attack.begin(x[new], rng.select(new)))
        at = at_step(rng.select(rows), attack, when - joins[rows])
        state = attack.advance(f, state or {}, x[rows], y[rows], rng=at)
        stay = when - joins[rows] + 1 < attack.steps
        finished[rows[~stay]] = attack.finish(chosen(state, ~stay))
        rows, state = rows[stay], chosen(state, stay)
    assert not len(rows)
    assert torch.equal(finished, expected)
    assert attack.threat.allows(finished, x).all()


def joined(state: State | None, new: State) -> State:
    return new if state is None else {name: torch.cat([state[name], new[name]]) for name in new}


def chosen(state: State, rows: Tensor) -> State:
    return {name: values[rows] for name, values in state.items()}


@pytest.mark.parametrize("name", ATTACKS)
def test_threat_model_by_name_equals_the_object(name: str) -> None:
    threat: ThreatModel = next(attack for case, attack in CASES.items() if case.split()[0] == name).threat
    assert ATTACKS[name](str(threat)) == ATTACKS[name](threat)


@pytest.mark.parametrize("name", cases_of(*LONG))
def test_call_without_rng_uses_seed_0_and_places(name: str) -> None:
    f, x, y, _ = problem(3)
    attack = CASES[name]
    rng = KeyedRNG(torch.arange(3), 0, str(attack))
    assert torch.equal(attack(f, x, y), attack(f, x, y, rng=rng))


def test_step_size_defaults_to_2_5_radii_over_steps() -> None:
    assert PGD("Linf:0.1", steps=10).step_size == pytest.approx(0.025)
    assert Momentum("L2:1", steps=5).step_size == pytest.approx(0.5)


def test_unsupported_threat_model_raises_input_error() -> None:
    for attack, threat in ((Square, EARTH), (CarliniWagner, LINF), (NFGSM, EUCLID), (ProjectedWasserstein, LINF)):
        with pytest.raises(InputError, match=f"{attack.__name__}.*{threat.norm}"):
            attack(threat)


def test_package_exports_every_name_of_all() -> None:
    assert all(hasattr(forefend.attacks, name) for name in forefend.attacks.__all__)
    assert len(set(forefend.attacks.__all__)) == len(forefend.attacks.__all__)


@pytest.mark.parametrize("case", CASES)
def test_attack_on_pixels_outside_the_box_is_refused(case: str, net: nn.Module, x: Tensor, y: Tensor) -> None:
    with pytest.raises(InputError, match="0, 1"):
        CASES[case](net, 255 * x, y)
