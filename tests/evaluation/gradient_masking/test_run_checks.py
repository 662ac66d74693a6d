"""The checks on real digits: honest defenses pass, and each masked defense fails named checks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.masked_defenses import (
    JPEG,
    CarelessJPEG,
    FlatJPEG,
    FlipGradient,
    Probabilities,
    Purify,
    Quantize,
    RandomResize,
    Saturate,
    Sharpened,
    Shatter,
)
from helpers.toy_networks import held, train, untouched
from torch import Tensor, nn

from forefend import data
from forefend.attacks.auto_pgd import APGD
from forefend.attacks.autoattack import AutoAttack
from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.evaluation.access import Access, oblivious
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.gradient_masking.attack_suite import CheckBudget
from forefend.evaluation.gradient_masking.check import check
from forefend.evaluation.gradient_masking.check_report import CheckResult
from forefend.evaluation.gradient_masking.checks import GENERAL, WITH_ATTACKS, WITH_GRADIENTS
from forefend.evaluation.gradient_masking.evidence import RecordedAccuracy
from forefend.evaluation.trial import Trial
from forefend.losses import margin
from forefend.models import preprocessors
from forefend.models.classifiers.pretrained import load_weights
from forefend.models.defended import Defended
from forefend.models.defense import load
from forefend.models.guide import Guide
from forefend.models.initialization import new_classifier
from forefend.recipes import HGD, RTFE, Adversarial, Natural
from forefend.recipes.base import Networks
from forefend.recipes.hgd import logit
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf
from forefend.threat_models.wasserstein import Wasserstein

THREAT = Linf(0.2)
INNER: dict[str, Any] = {"threat": THREAT, "steps": 3, "relative_step": 0.5, "batch_size": 64}

CLEAN = "the model works on clean images"
BATCH = "outputs do not depend on the batch"
ZERO = "input gradients are not zero"
NOISE = "random noise does not beat attacks"
QUERIES = "black-box attacks do not beat white-box attacks"
BYPASS = "transfer attacks do not beat white-box attacks"
BPDA = "BPDA does not beat white-box attacks"
UPHILL = "the loss rises along the gradient"
STEPS = "iterative attacks beat a single step"
CHANCE = "accuracy falls to chance as the radius grows"
AGREES = "the recorded accuracy agrees with these attacks"
RANDOM = "the output is deterministic, or was attacked through EOT"
RECORDS = "recorded attacks follow gradients of the defense"
INSIDE = "no optimization runs in the forward pass"
LOGITS = "the output is logits"
LAST = "a stronger attack breaks few more images"


def apgd(threat: ThreatModel, classes: int, version: str) -> Attack:
    """A reference attack of seconds in place of AutoAttack."""
    return APGD(threat, 20, loss=margin)


SMALL = CheckBudget(steps=25, restarts=2, queries=200, samples=3, reference=apgd)


def digits(split: str = "train") -> ImageDataset:
    return data.load("digits", split)


def some(count: int = 40) -> ImageDataset:
    return data.sample(digits("test"), count, 0)


def new() -> nn.Module:
    return new_classifier("cnn", digits(), 0)


def unet() -> nn.Module:
    torch.manual_seed(0)
    return preprocessors.build("narrow-unet", channels=1, widths=[8, 16], depths=[1, 1])


@pytest.fixture(scope="module")
def natural() -> nn.Module:
    return train(Natural(epochs=6), digits(), Networks(classifier=new())).classifier.eval()


@pytest.fixture(scope="module")
def robust() -> nn.Module:
    return train(Adversarial(**INNER, epochs=5, lr=0.05), digits(), Networks(classifier=new())).classifier.eval()


@pytest.fixture(scope="module")
def rtfe(natural: nn.Module) -> nn.Module:
    """A preprocessor trained by RTFE in front of the natural classifier."""
    networks = train(RTFE(**INNER, epochs=5), digits(), Networks(unet(), [Guide(natural)]))
    return Defended(networks.preprocessor.eval(), natural)


def checked(
    network: nn.Module, images: ImageDataset | None = None, threat: ThreatModel = THREAT, **more: Any
) -> list[CheckResult]:
    return check(network, images or some(), threat, **{"budget": SMALL} | more)


def failed(results: list[CheckResult]) -> set[str]:
    return {result.check for result in results if result.failed}


def measured(results: list[CheckResult], name: str) -> str:
    return next(result.measured for result in results if result.check == name)


def test_honest_classifiers_pass(natural: nn.Module, robust: nn.Module) -> None:
    for network in (natural, robust):
        found = checked(network)
        assert failed(found) == set()
        assert len(found) == len(GENERAL) + len(WITH_ATTACKS) + len(WITH_GRADIENTS) == 18


def test_rtfe_passes_and_is_unchanged(rtfe: nn.Module) -> None:
    before = held(rtfe)
    found = checked(rtfe)
    assert failed(found) == set()
    assert untouched(rtfe, before)
    assert measured(found, BYPASS).startswith("bypassed breaks")
    assert float(measured(found, NOISE).split("noise, ")[1].split(" %")[0]) > 15  # the defense is robust to some degree


class Cramped(nn.Module):
    """A classifier that runs out of memory above eight images."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 8:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        logits: Tensor = self.classifier(x)
        return logits


def test_checks_with_little_memory_are_equal(natural: nn.Module) -> None:
    budget = replace(SMALL, steps=5, queries=20, restarts=1)
    found = checked(Cramped(natural), some(20), budget=budget)
    assert measured(found, ZERO) == measured(checked(natural, some(20), budget=budget), ZERO)
    assert measured(found, UPHILL) == measured(checked(natural, some(20), budget=budget), UPHILL)


def test_honest_classifier_passes_in_l2(robust: nn.Module) -> None:
    found = checked(robust, some(30), L2(1))
    assert failed(found) == set()
    assert "at L2 4," in measured(found, CHANCE)  # half the diagonal of 64 pixels


# A masked defense, the number of images, and the checks that must fail.
MASKED: dict[str, tuple[nn.Module, int, set[str]]] = {
    "8 levels": (Quantize(8), 40, {ZERO, QUERIES, BYPASS, BPDA, UPHILL, CHANCE}),
    "64 levels": (Quantize(64), 40, {ZERO, QUERIES, BYPASS, BPDA, UPHILL, CHANCE}),
    "saturating clamp": (Saturate(), 40, {ZERO, QUERIES, BYPASS, UPHILL, CHANCE}),
    "sign-flipped gradient": (FlipGradient(), 40, {QUERIES, BYPASS, BPDA, UPHILL, CHANCE}),
    "shattered gradient": (Shatter(), 40, {QUERIES, BYPASS, BPDA, CHANCE}),
    "JPEG whose gradient is zero": (FlatJPEG(), 20, {ZERO, QUERIES, BYPASS, BPDA, UPHILL, CHANCE}),
    "JPEG": (JPEG(), 20, {ZERO, QUERIES, BYPASS, BPDA}),
    "JPEG that raises": (CarelessJPEG(), 20, {ZERO, QUERIES, BYPASS, BPDA}),
}


@pytest.mark.parametrize("name", MASKED)
def test_masked_defense_fails(name: str, natural: nn.Module) -> None:
    defense, count, by = MASKED[name]
    assert failed(checked(Defended(defense, natural), some(count))) >= by


def test_without_gradient_other_checks_run(natural: nn.Module) -> None:
    found = checked(nn.Sequential(JPEG(), natural), some(20))
    assert failed(found) >= {ZERO, QUERIES}
    assert measured(found, ZERO) == "the output has no gradient"
    assert measured(found, BPDA).startswith("not run")
    assert len(found) == len(GENERAL) + len(WITH_ATTACKS)


def margins(network: nn.Module, images: ImageDataset) -> Tensor:
    x, y, _ = images.batch(torch.arange(len(images)))
    with torch.no_grad():
        return -margin(network(x), y)


@pytest.mark.parametrize("share", [0.8, 0.6])
def test_tiny_temperature_fails(share: float, natural: nn.Module) -> None:
    """Cross-entropy is constant in float32 where the margin exceeds about 104."""
    temperature = float(margins(natural, some()).quantile(1 - share)) / 104
    found = checked(Sharpened(natural, temperature))
    assert failed(found) >= {ZERO}
    assert abs(float(measured(found, ZERO).removeprefix("zero for ").split(" %")[0]) - 100 * share) < 10
    assert (CHANCE in failed(found)) == (share == 0.8)


def test_mild_temperature_passes(natural: nn.Module) -> None:
    assert failed(checked(Sharpened(natural, 0.5), some(20))) == set()


ONCE = str(Trial("", PGD(THREAT, 20, 0.025), THREAT))
BLIND = str(Trial("", PGD(THREAT, 20, 0.025), THREAT, access=Access(oblivious)))
AVERAGED = str(Trial("", PGD(THREAT, 20, 0.025), THREAT, access=Access(eot_samples=20)))


def test_random_defense_needs_recorded_eot(robust: nn.Module) -> None:
    defended, images = Defended(RandomResize(), robust), some(16)
    small = CheckBudget(steps=10, restarts=2, queries=30, samples=2, reference=apgd)
    state = torch.get_rng_state()
    once, averaged = (
        checked(defended, images, records=RecordedAccuracy(trials), budget=small)
        for trials in ([ONCE], [ONCE, AVERAGED])
    )
    assert failed(once) == {RANDOM}
    assert failed(averaged) == set()
    alike = {f.check for f in once} - {RANDOM, RECORDS}
    assert [f for f in once if f.check in alike] == [f for f in averaged if f.check in alike]
    assert torch.equal(torch.get_rng_state(), state)


def test_denoiser_with_oblivious_records_only_fails(natural: nn.Module) -> None:
    networks = train(HGD(**INNER, epochs=1, guidance=logit), digits(), Networks(unet(), [Guide(natural)]))
    defended = Defended(networks.preprocessor.eval(), natural)
    images = some(20)
    everyone = frozenset(images.index.tolist())
    assert failed(checked(defended, images, records=RecordedAccuracy([BLIND], everyone, everyone))) == {
        CLEAN,  # a barely trained denoiser
        RECORDS,
        AGREES,
    }
    assert failed(checked(defended, images, records=RecordedAccuracy([BLIND, ONCE], everyone))) == {CLEAN}


class Constant(nn.Module):
    """A dead defense: every image becomes the same gray one."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 + 0 * x


class Faint(nn.Module):
    """Hides contrast."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 + 1e-3 * (x - 0.5)


@pytest.mark.parametrize("defense", [Constant(), Faint()], ids=["constant", "faint"])
def test_dead_defense_fails_first(defense: nn.Module, natural: nn.Module) -> None:
    budget = replace(SMALL, steps=5, restarts=1, queries=20)
    for network in (Defended(defense, natural), nn.Sequential(defense, natural)):
        found = checked(network, budget=budget)
        assert CLEAN in failed(found)
        assert "near chance" in measured(found, CLEAN)
        assert "predicts class" in measured(found, CLEAN)
        assert ("its classifier alone" in measured(found, CLEAN)) == isinstance(network, Defended)


def test_checks_without_a_correct_image_are_skipped(natural: nn.Module) -> None:
    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = natural(x).roll(1, 1)
            return output

    found = checked(Wrong(), some(20), budget=replace(SMALL, steps=5, restarts=1, queries=20))
    assert {result.status for result in found if result.check in (QUERIES, NOISE, STEPS, LAST)} == {"skipped"}
    assert CLEAN in failed(found)


def test_outputs_that_mix_images_fail_without_attacks() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(16, track_running_stats=False)
    found = checked(nn.Sequential(nn.Conv2d(1, 16, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(576, 10)))
    assert BATCH in failed(found)
    assert len(found) == len(GENERAL)


def test_state_in_a_closure_fails(natural: nn.Module) -> None:
    calls: list[int] = []

    class Drifting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(1)
            output: Tensor = natural(x) * (1 + 0.1 * len(calls))
            return output

    small = replace(SMALL, steps=3, restarts=1, queries=5, samples=1)
    assert RANDOM in failed(checked(Drifting(), some(8), budget=small))


def test_buffer_that_moves_is_refused(natural: nn.Module) -> None:
    class Moving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(1, 1, 2, 2))

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1
            output: Tensor = natural(x)
            return output

    network = Moving()
    with pytest.raises(InputError, match="changes its own buffers"):
        checked(network)
    assert not network.seen.any()


def test_probabilities_fail_without_attacks(natural: nn.Module) -> None:
    found = checked(Probabilities(natural))
    assert failed(found) >= {LOGITS}
    assert len(found) == len(GENERAL)


def test_logarithms_of_probabilities_pass(natural: nn.Module) -> None:
    assert failed(checked(nn.Sequential(natural, nn.LogSoftmax(1)), some(20))) == set()


def test_purifier_that_optimizes_fails(natural: nn.Module) -> None:
    assert failed(checked(Defended(Purify(), natural), some(20))) == {INSIDE}


def test_surrogate_reveals_masked_classifier(natural: nn.Module) -> None:
    bare = nn.Sequential(FlipGradient(), natural)
    found = checked(bare, some(20), surrogates={"twin": natural})
    assert failed(found) >= {BYPASS, QUERIES, UPHILL}
    assert measured(found, BYPASS).startswith("transfer from twin breaks")
    assert BYPASS not in failed(checked(bare, some(20)))


def test_autoattack_runs_last_and_resumes(robust: nn.Module, tmp_path: Path) -> None:
    budget = CheckBudget(steps=10, restarts=1, queries=50, reference=partial(AutoAttack, queries=20))
    found = checked(robust, some(6), budget=budget, folder=tmp_path)
    assert failed(found) == set()
    kept = (tmp_path / "records.jsonl").read_text(encoding="utf-8")
    assert "AutoAttack-standard(Linf:0.2, apgd-ce + apgd-t x9 + fab-t x9 + square 20)" in kept
    assert checked(robust, some(6), budget=budget, folder=tmp_path) == found
    assert (tmp_path / "records.jsonl").read_text(encoding="utf-8") == kept


def test_fast_runs_last_by_default(robust: nn.Module, tmp_path: Path) -> None:
    found = checked(robust, some(4), budget=CheckBudget(steps=10, restarts=1, queries=50), folder=tmp_path)
    assert failed(found) == set()
    assert measured(found, LAST).endswith("after fast; a number to publish needs AutoAttack, the suite standard")
    kept = (tmp_path / "records.jsonl").read_text(encoding="utf-8")
    assert "APGDRotation" in kept
    assert "AutoAttack" not in kept


def test_reference_far_below_the_suite_fails(natural: nn.Module) -> None:
    class Informed:
        """Attacks the classifier without its gradient mask."""

        def __call__(self, f: Any, x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
            return APGD(THREAT, 20, loss=margin)(natural, x, target, rng=rng)

        def __str__(self) -> str:
            return "informed"

    budget = replace(SMALL, reference=lambda threat, classes, version: Informed())
    found = checked(nn.Sequential(FlipGradient(), natural), some(20), budget=budget)
    assert failed(found) >= {LAST}
    assert measured(found, LAST).endswith(" 0.0 % after AutoAttack")


@pytest.mark.parametrize(
    ("threat", "words"),
    [
        (Linf(0), "Linf:0: give Linf or L2 with one radius above 0"),
        (Linf(torch.tensor([0.1, 0.2])), "per image"),
        (Wasserstein(0.1), "Wasserstein"),
    ],
)
def test_unsupported_threat_model_is_refused(
    threat: ThreatModel, words: str, natural: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        checked(natural, threat=threat, folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(65, 10)), "do not fit"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), r"shape \(2, 3\), expected \(2, 10\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Threshold(1e9, torch.nan)), "NaN or infinite logits"),
    ],
)
def test_unfit_model_is_refused(network: nn.Module, words: str) -> None:
    with pytest.raises(InputError, match=words):
        checked(network)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_published_trades_passes_with_full_budget(real_data: Path) -> None:
    network = load_weights("smallcnn", real_data / "classifiers" / "trades-mnist-smallcnn-robust.pt", mean=0, std=1)
    images = data.sample(data.load("mnist", "test", data_dir=real_data), 50, 0)
    found = check(EvaluatedModel("trades", network), images, Linf(0.3))
    assert failed(found) == set()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_rtfe_fashion_mnist_passes_with_full_budget(real_data: Path) -> None:
    run = Path(__file__).parents[3] / "runs" / "rtfe-fashion"
    if not (run / "defense.json").exists():
        pytest.skip("runs/rtfe-fashion was not trained here: see results/small_runs.sh")
    from forefend.training.resolve_classifiers import resolve_classifier

    split = partial(data.load, "fashion-mnist", data_dir=real_data)
    guide = resolve_classifier(str(run.parent / "natural-fashion-mnist-cnn-s0"), split)
    images = data.sample(split("test"), 50, 0)
    found = check(EvaluatedModel("cnn", Defended(load(run), guide.network), True), images, Linf(0.1))
    assert failed(found) == set()
