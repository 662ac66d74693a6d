"""Identities of models: equal answers resume, other answers never do, and mixed batches are refused."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.calls import Calls
from helpers.toy_networks import SIZE, classifier, toy_images
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.evaluation import records
from forefend.evaluation.corruption_conditions import Condition
from forefend.evaluation.corruption_robustness import measure
from forefend.evaluation.evaluate import verdicts
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.gradient_masking.recorded_accuracy import read_records, recorded_accuracy
from forefend.evaluation.identification import KnownModels, examine
from forefend.evaluation.result_store import key_of
from forefend.evaluation.suites import general
from forefend.models.freezing import frozen
from forefend.runtime.files import append
from forefend.threat_models.lp import Linf

THREAT = Linf(0.1)


class Session:
    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def run(self, x: Tensor) -> Tensor:
        output: Tensor = self.network(x)
        return output


def edited(shift: float) -> nn.Module:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = classifier()

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.body(1 - x if shift else x)
            return output

    return Mine()


def straight_through(through: bool) -> nn.Module:
    class Rounds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = classifier()

        def forward(self, x: Tensor) -> Tensor:
            rounded = (8 * x).round() / 8 if not through else x + ((8 * x).round() / 8 - x).detach()
            output: Tensor = self.body(rounded)
            return output

    return Rounds()


GOOD, OTHER = classifier(), classifier(seed=3)
PAIRS: dict[str, tuple[nn.Module, nn.Module]] = {
    "edited forward": (edited(0), edited(1)),
    "equal logits, other gradients": (straight_through(False), straight_through(True)),
    "closure": (Calls(lambda x: GOOD(x)), Calls(lambda x: OTHER(x))),
    "functools.partial": (Calls(functools.partial(GOOD)), Calls(functools.partial(OTHER))),
    "session": (Calls(Session(GOOD).run), Calls(Session(OTHER).run)),
}


def judged(network: nn.Module, folder: Path | None) -> list[dict[int, bool]]:
    return verdicts(EvaluatedModel("net", network), toy_images(12), general.quick(THREAT)[:2], folder=folder)


@pytest.mark.parametrize("name", PAIRS)
def test_evaluate_never_returns_verdicts_of_other_answers(tmp_path: Path, name: str) -> None:
    first, second = PAIRS[name]
    judged(first, tmp_path)
    assert judged(second, tmp_path) == judged(second, None)
    lines = records.read(tmp_path / "records.jsonl")
    assert len({line.model for line in lines}) == 2
    assert judged(second, tmp_path) == judged(second, None)
    judged(first, tmp_path)
    assert records.read(tmp_path / "records.jsonl") == lines  # both resume


def test_corruptions_never_return_verdicts_of_other_answers(tmp_path: Path) -> None:
    def measured(network: nn.Module, folder: Path | None) -> Any:
        folder = folder and folder / f"{id(network)}"
        return [measure([EvaluatedModel("net", network)], [Condition("none", 0, toy_images)], folder=folder)]

    first, second = PAIRS["closure"]
    keys = []
    for network in (first, second):
        measured(network, tmp_path)
        keys += [line.model for line in records.read(tmp_path / f"{id(network)}" / "records.jsonl")]
    assert len(set(keys)) == 2


def test_identify_float_noise_and_other_images_keep_the_id(tmp_path: Path) -> None:
    network, images = classifier(), toy_images(20)
    known = KnownModels()
    first = known.identify(examine(network, images, "net"), "net")
    known.save(tmp_path)
    again = KnownModels([tmp_path])
    with torch.no_grad():
        some = examine(network, images.subset(torch.arange(3, 20)), "net")
    noisy = {name: [value * (1 + 1e-6) for value in row] for name, row in (some.answers or {}).items()}
    assert again.identify(type(some)(some.network, noisy, some.x), "net") == first


def test_identify_irreproducible_model_never_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    network = Calls(lambda x: GOOD(x) + torch.randn(len(x), 4, generator=generator))
    identities = {KnownModels().identify(examine(network, toy_images(8), "net"), "net") for _ in range(3)}
    assert len(identities) == 3
    assert "not resumed" in capsys.readouterr().out


def test_known_models_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "models.json").write_text('{"models": [{"network": 1}]}')
    with pytest.raises(InputError, match=r"models\.json is damaged"):
        KnownModels([tmp_path])


def test_recorded_accuracy_counts_only_equal_answers(tmp_path: Path) -> None:
    first, second = PAIRS["closure"]
    judged(first, tmp_path)
    recorded, images = read_records([tmp_path]), toy_images(12)
    assert len(recorded_accuracy(recorded, EvaluatedModel("net", first), images, THREAT).attacked) == 12
    assert recorded_accuracy(recorded, EvaluatedModel("net", second), images, THREAT).trials == ()


def test_recorded_accuracy_counts_no_records_without_answers(tmp_path: Path) -> None:
    network, images = classifier(), toy_images(12)
    old = key_of(examine(frozen(network), images, "net").network, images)
    judged(network, tmp_path)
    lines = records.read(tmp_path / "records.jsonl")
    (tmp_path / "records.jsonl").unlink()
    append(tmp_path / "records.jsonl", *(replace(line, model=old) for line in lines))
    found = recorded_accuracy(read_records([tmp_path]), EvaluatedModel("net", network), images, THREAT)
    assert (found.trials, found.attacked) == ((), frozenset())
    assert found.unidentified > 12


MIXED = {
    "BatchNorm": nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(), nn.Linear(64, 4)
    ),
    "BatchNorm of vectors": nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(SIZE * SIZE, track_running_stats=False), nn.Linear(SIZE * SIZE, 4)
    ),
    "mean": Calls(lambda x: GOOD(x - x.mean(0))),
    "first image": Calls(lambda x: GOOD(x) - GOOD(x[:1])),
}


@pytest.mark.parametrize("name", MIXED)
def test_evaluate_outputs_that_mix_images_raise(name: str) -> None:
    with pytest.raises(InputError, match="beside other images"):
        judged(MIXED[name].eval(), None)


class Moving(nn.Module):
    """A classifier with a four-dimensional buffer that moves in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.net = classifier()
        self.register_buffer("seen", torch.zeros(1, 1, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        output: Tensor = self.net(x)
        return output


def test_evaluate_four_dimensional_buffer_that_moves_raises() -> None:
    network = Moving()
    with pytest.raises(InputError, match="changes its own buffers"):
        judged(network, None)
    assert not network.seen.any()
