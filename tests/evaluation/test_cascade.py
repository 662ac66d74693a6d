"""A cascade loses an image exactly if one of its stages alone does, and asks the dear stage about survivors alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.results import broken
from helpers.threshold_classifier import Threshold, levels, robust_share
from helpers.toy_networks import CLASSES, classifier, toy_images, trained_classifier
from torch import Tensor, nn

from forefend import data
from forefend.attacks.pgd import PGD, fgsm, from_x
from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.evaluation import records, suites
from forefend.evaluation.access import Access, oblivious, through_bpda
from forefend.evaluation.attack_runner import Job, run_all_steps, stop_at_success
from forefend.evaluation.cost_estimate import cost_of
from forefend.evaluation.evaluate import evaluate, verdicts
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.gradient_masking.evidence import sees_defense
from forefend.evaluation.trial import Cascade, Trial, with_copies
from forefend.losses import margin
from forefend.models.defended import Defended
from forefend.models.optimized_copy import OptimizedCopy
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf

THREAT = Linf(0.1)
WHITE_BOX = Access()


@dataclass(frozen=True)
class Last:
    """Moves each image by an amount that depends on its batch, as AutoAttack does, and lists its batches."""

    threat: ThreatModel
    asked: list[list[int]] = field(default_factory=list, compare=False)
    dies_at: int = -1

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Tensor, *, rng: KeyedRNG) -> Tensor:
        if len(self.asked) == self.dies_at:
            raise KeyboardInterrupt
        self.asked.append(rng.index.tolist())
        share = torch.rand((), generator=torch.Generator().manual_seed(int(rng.index.sum())))
        side = 1 - 2 * target.view(-1, 1, 1, 1)  # over the threshold, whichever way that is
        return self.threat.project(x + share * self.threat.radius * side, x)

    def __str__(self) -> str:
        return f"Last({self.threat})"


def chain(last: Any, *before: Trial, access: Access = WHITE_BOX) -> Trial:
    return Trial("chain", last, last.threat, access=access, run=Cascade(before))


def step(threat: ThreatModel, share: float, **more: Any) -> Trial:
    """One step of a part of the radius from the image itself: it breaks what is as near as that."""
    return Trial(
        f"step {share}", PGD(threat, 1, share * threat.radius, start=from_x), threat, run=stop_at_success, **more
    )


def broken_by(network: nn.Module, images: ImageDataset, trial: Trial, **more: Any) -> frozenset[int]:
    return broken(verdicts(EvaluatedModel("it", network), images, [trial], **more)[-1])


@pytest.mark.parametrize("batch_size", [7, 100])
def test_cascade_on_a_threshold_is_exact(batch_size: int) -> None:
    last = Last(Linf(0.2))
    dear = fgsm(Linf(0.2))
    images, network = levels(2), Threshold()
    for cheap, reached in ((0.2, 0.04), (0.7, 0.14)):
        cell = evaluate(network, images, [chain(dear, step(Linf(0.2), cheap))], batch_size=batch_size)[1]
        assert cell.accuracy == robust_share(0.2, 2)
        broken_by(network, images, chain(last, step(Linf(0.2), cheap)), batch_size=batch_size)
        left = [index for part in last.asked for index in part]
        assert len(left) == 40 * robust_share(reached, 2)
        last.asked.clear()


@pytest.mark.parametrize("batch_size", [9, 100])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("threat", [Linf(0.2), Linf(0.23)], ids=str)
def test_cascade_breaks_the_union_of_its_stages(threat: Linf, precision: str, batch_size: int) -> None:
    view = Access(precision=precision)
    first = Trial("first", PGD(threat, 2, threat.radius / 2), threat, access=view, run=stop_at_success)
    second = Trial(
        "second", PGD(threat, 2, threat.radius / 2, loss=margin), threat, 2, access=view, run=stop_at_success
    )
    last = PGD(threat, 1, threat.radius)
    images = toy_images(80, seed=1, split="test")
    network, settings = trained_classifier(), {"batch_size": batch_size, "seed": 1}
    alone = [broken_by(network, images, t, **settings) for t in (first, second, Trial("last", last, threat))]
    assert broken_by(network, images, chain(last, first, second), **settings) == alone[0] | alone[1] | alone[2]
    assert all(alone[i] - alone[i - 1] - alone[i - 2] for i in range(3))  # none does another's work
    assert broken_by(network, images, chain(last, second, first), **settings) == alone[0] | alone[1] | alone[2]


def test_cascade_last_stage_has_its_own_random_starts() -> None:
    """Its random starts alone decide, so that other numbers than its own would break other images."""
    luck = PGD(Linf(0.1), 1, 0.0)
    cheap = step(Linf(0.1), 0.05)
    alone = [broken_by(Threshold(), levels(), trial) for trial in (Trial("luck", luck, luck.threat), cheap)]
    assert alone[0] - alone[1]
    assert broken_by(Threshold(), levels(), chain(luck, cheap)) == alone[0] | alone[1]


@pytest.mark.parametrize("batch_size", [5, 8, 64])
def test_cascade_last_stage_gets_robust_images_in_order(batch_size: int) -> None:
    last, threat = Last(Linf(0.2)), Linf(0.2)
    cheap = Trial("cheap", PGD(threat, 6, 0.05), threat, access=Access(precision="bf16"), run=stop_at_success)
    images, network = data.sample(toy_images(70, seed=1, split="test"), 50, seed=2), trained_classifier()
    clean, fallen = map(broken, verdicts(EvaluatedModel("it", network), images, [cheap], batch_size=batch_size))
    broken_by(network, images, chain(last, cheap), batch_size=batch_size)
    survivors = [index for index in images.index.tolist() if index not in fallen]
    assert 0 < len(survivors) < len(images) - len(clean)
    assert last.asked == [survivors[i : i + batch_size] for i in range(0, len(survivors), batch_size)]


def interrupted(folder: Path, dies_at: int) -> tuple[Last, Last]:
    """A cascade that dies in its last stage, and one that goes on."""
    first, second = Last(THREAT, dies_at=dies_at), Last(THREAT)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Threshold(), levels(), [chain(first, step(THREAT, 0.4))], folder=folder, batch_size=6)
    evaluate(Threshold(), levels(), [chain(second, step(THREAT, 0.4))], folder=folder, batch_size=6)
    return first, second


@pytest.mark.parametrize("dies_at", [0, 1, 3])
def test_cascade_interrupted_resumes_with_equal_batches(dies_at: int, tmp_path: Path) -> None:
    whole = Last(THREAT)
    evaluate(Threshold(), levels(), [chain(whole, step(THREAT, 0.4))], folder=tmp_path / "whole", batch_size=6)
    first, second = interrupted(tmp_path / "cut", dies_at)
    assert first.asked + second.asked == whole.asked
    assert len(first.asked) == dies_at
    assert recorded(tmp_path / "cut") == recorded(tmp_path / "whole")
    assert len(set(recorded(tmp_path / "whole").values())) == 2


def recorded(folder: Path) -> dict[tuple[str, int], bool]:
    """All recorded verdicts; each must be recorded once."""
    found: dict[tuple[str, int], bool] = {}
    for record in records.read(folder / "records.jsonl"):
        assert not found.keys() & {(record.trial, index) for index in record.index}
        found |= {(record.trial, i): lost for i, lost in zip(record.index, record.misclassified, strict=True)}
    return found


def test_cascade_records_early_stages_before_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(Threshold(), levels(), [chain(Last(THREAT, dies_at=0), step(THREAT, 0.4))], folder=tmp_path)
    found = {index: lost for (trial, index), lost in recorded(tmp_path).items() if "Last" in trial}
    assert sorted(found) == sorted(broken_by(Threshold(), levels(), step(THREAT, 0.4)))
    assert set(found.values()) == {True}


def test_cascade_halves_batches_of_one_stage_only() -> None:
    last, images = Last(THREAT), levels()

    def small(x: Tensor) -> Tensor:
        if len(x) > 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return Threshold()(x)

    def wrong(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        with torch.no_grad():
            return Threshold()(x).argmax(1) != y

    middle = Last(THREAT)
    run = Cascade((step(THREAT, 0.4), Trial("middle", middle, THREAT)))
    job = Job("chain", last, THREAT, 1, small, wrong, images.batch, AdaptiveBatchSize(10), 0)
    found = dict(pair for part in run(job, torch.arange(40)) for pair in zip(*part, strict=True))
    assert sorted(found) == list(range(40))
    assert [len(part) for part in middle.asked] == [10, 10, 10, 6]
    assert {len(part) for part in last.asked[:-1]} == {10}


def test_cascade_stages_of_equal_access_share_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    prepared = OptimizedCopy.__init__

    def counted(self: OptimizedCopy, *arguments: Any, **more: Any) -> None:
        made.append(arguments[2])
        prepared(self, *arguments, **more)

    monkeypatch.setattr(OptimizedCopy, "__init__", counted)
    cheap = [replace(step(THREAT, share), access=Access(precision="bf16")) for share in (0.1, 0.2)]
    broken_by(trained_classifier(), toy_images(12, split="test"), chain(Last(THREAT), *cheap))
    assert made.count(torch.bfloat16) == 1


def test_cascade_stage_access_is_within_the_trial_s() -> None:
    guarded = Defended(nn.Identity(), trained_classifier())
    images = toy_images(40, seed=1, split="test")
    seen = []

    def spying(model: nn.Module) -> nn.Module:
        seen.append(model)
        return model

    trial = chain(Last(THREAT), replace(step(THREAT, 0.4), access=Access(spying)), access=Access(oblivious))
    verdicts(EvaluatedModel("it", guarded, defended=True), images, [trial])
    assert [isinstance(one, Defended) for one in seen] == [False]


@pytest.mark.parametrize("batch_size", [9, 100])
def test_cascade_until_success_breaks_the_union_of_its_stages(batch_size: int) -> None:
    threat = Linf(0.2)
    first = Trial("first", PGD(threat, 2, threat.radius / 2), threat, run=stop_at_success)
    last = Trial("last", PGD(threat, 2, threat.radius / 2, loss=margin), threat, run=stop_at_success)
    images, settings = toy_images(80, seed=1, split="test"), {"batch_size": batch_size, "seed": 1}
    alone = [broken_by(trained_classifier(), images, each, **settings) for each in (first, last)]
    both = broken_by(trained_classifier(), images, replace(last, run=Cascade((first,), stop_at_success)), **settings)
    assert both == alone[0] | alone[1]
    assert alone[0] - alone[1]
    assert alone[1] - alone[0]


def test_cascade_identity_names_all_stages_and_one_access() -> None:
    trial = chain(fgsm(THREAT), step(THREAT, 0.4), step(THREAT, 0.8))
    names = [str(trial.attack), *(str(stage.attack) for stage in trial.stages)]
    assert [str(trial).index(name) for name in names] == sorted(str(trial).index(name) for name in names)
    assert sees_defense(str(trial))
    assert not sees_defense(str(replace(trial, access=Access(oblivious))))
    others = [
        trial,
        replace(trial, run=stop_at_success),
        replace(trial, run=run_all_steps),
        replace(trial, run=Cascade(trial.stages, stop_at_success)),
        replace(trial, run=Cascade(trial.stages[:1])),
        replace(trial, run=Cascade(trial.stages[::-1])),
        *with_copies([trial], "fp32"),
    ]
    assert len(set(map(str, others))) == len(others)


def test_cascade_cost_is_the_sum_of_its_stages() -> None:
    (trial,) = suites.fast(THREAT, CLASSES)
    assert trial.gradients() == 720
    assert trial.forwards() == 2000
    averaged = replace(trial, access=Access(eot_samples=3))
    assert averaged.gradients() == 3 * trial.gradients()
    said = str(cost_of([EvaluatedModel("it", classifier())], toy_images(10), [trial], batch_size=5))
    assert said.startswith("At most 720 gradients and 2000 further forward passes")


def test_with_copies_changes_early_stages_only() -> None:
    plain = chain(Last(THREAT), step(THREAT, 0.4), Trial("FGSM", fgsm(THREAT), THREAT))
    (fast,) = with_copies([plain])
    assert [stage.access for stage in fast.stages] == [Access(precision="bf16"), Access()]
    assert (fast.access, fast.attack) == (Access(), plain.attack)


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Threshold()(x + 0.05 * torch.randn_like(x))


class Rounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.detach() * 255).round() / 255


def test_cascade_refuses_random_or_nondifferentiable_models() -> None:
    with pytest.raises(InputError, match=r"fast does not average.*randomized"):
        evaluate(Noisy(), levels(), "fast", THREAT)
    averaged = chain(Last(THREAT), step(THREAT, 0.4), access=Access(eot_samples=2))
    with pytest.raises(InputError, match=r"chain stops at the first lucky one"):
        evaluate(Noisy(), levels(), [averaged])
    guarded = Defended(Rounded(), Threshold())
    with pytest.raises(InputError, match="gives no gradient, and fast needs one"):
        evaluate(guarded, levels(), "fast", THREAT)
    blind = chain(Last(THREAT), step(THREAT, 0.4))
    with pytest.raises(InputError, match="gives no gradient, and chain needs one"):
        evaluate(guarded, levels(), [blind])
    assert evaluate(guarded, levels(), [replace(blind, access=Access(through_bpda))])[1].accuracy <= robust_share(0.04)


def test_cascade_refuses_different_threat_models() -> None:
    with pytest.raises(InputError, match=r"chain .*Linf:0.1.*Linf:0.2"):
        chain(Last(THREAT), step(Linf(0.2), 0.4))
    with pytest.raises(InputError, match="at least one stage"):
        Cascade(())
