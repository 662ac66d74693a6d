from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy_networks import Stopping, same, toy_cast, toy_images, train, trained, with_roles_of
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.recipes import HGD, RECIPES, RTFE, Adversarial, Natural, Robustifier
from forefend.recipes.base import Batch
from forefend.runtime.files import read_versioned
from forefend.runtime.rng import KeyedRNG
from forefend.runtime.run_folder import Run
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf
from forefend.training import best_epoch
from forefend.training.config import TrainingConfig
from forefend.training.trainer import fit

PROBE = toy_images(8).batch(torch.arange(8))[0]
SMALL = RTFE(Linf(0.1), steps=1, epochs=4, batch_size=16)


class Scores:
    """A measure of each epoch that is given beforehand; it keeps the images, and the answer of the first guide."""

    def __init__(self, *robust: float) -> None:
        self.robust, self.logits, self.index = iter(robust), list[Tensor](), list[Tensor]()

    def __call__(self, f: Any, threat: ThreatModel, batches: Iterable[Batch]) -> dict[str, Any]:
        self.logits.append(f(PROBE)[0])
        self.index.append(torch.cat([batch.index for batch in batches]))
        return {"clean": 1.0, "robust": next(self.robust), "images": len(self.index[-1]), "attack": "none"}


@pytest.mark.parametrize(("robust", "best"), [((0.2, 0.6, 0.4, 0.5), 2), ((0.6, 0.2, 0.6, 0.5), 3), ((0.0,) * 4, 4)])
def test_fit_keeps_the_epoch_of_highest_robust_accuracy(
    robust: tuple[float, ...], best: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scores = Scores(*robust)
    monkeypatch.setattr(best_epoch, "judged", scores)
    networks = train(SMALL, toy_images(), toy_cast(), keep_best=0.2, ema=0.5, run=tmp_path)
    assert len({float(logits.sum()) for logits in scores.logits}) == 4
    answer = networks.guides[0](networks.preprocessor.eval()(PROBE))
    torch.testing.assert_close(answer, scores.logits[best - 1], rtol=0, atol=0)
    kept = read_versioned(tmp_path / "kept.json")["kept"]
    assert kept == {"epoch": best, "clean": 1.0, "robust": max(robust), "images": 8, "attack": "none"}


def test_fit_with_the_best_epoch_resumes_to_the_same_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(best_epoch, "judged", Scores(0.2, 0.6, 0.4, 0.5))
    whole = trained(train(SMALL, toy_images(), toy_cast(), keep_best=0.2))
    monkeypatch.setattr(best_epoch, "judged", Scores(0.2, 0.6, 0.4, 0.5))
    stopping = Stopping(7)  # in the third epoch
    options: dict[str, Any] = {"keep_best": 0.2, "run": Run(tmp_path)}
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, toy_images(), toy_cast(), augment=stopping, checkpoint_every=0, **options)
    assert same(trained(train(SMALL, toy_images(), toy_cast(), **options)), whole)
    assert same(trained(train(SMALL, toy_images(), toy_cast(), **options)), whole)  # when nothing is left to do
    assert "the weights of epoch 2 of 4 are kept: 60.0% robust" in capsys.readouterr().out


def test_judging_images_are_never_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, seen = Scores(*range(4)), set[int]()
    monkeypatch.setattr(best_epoch, "judged", scores)

    def look(x: Tensor, rng: KeyedRNG) -> Tensor:
        seen.update(rng.index.tolist())
        return x

    train(replace(SMALL), toy_images(), toy_cast(), keep_best=0.2, augment=look)
    held = {int(i) for i in scores.index[0]}
    assert all(torch.equal(index, scores.index[0]) for index in scores.index)
    assert len(held) == 8
    assert not held & seen
    assert held | seen == set(range(40))


class Threshold(nn.Module):
    """Two logits: whether the mean of the pixels is above a half; they are far apart and have a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return 10 * torch.stack((0.5 - mean, mean - 0.5), 1)


def test_judged_counts_images_within_the_radius_as_broken() -> None:
    x = torch.tensor([0.3, 0.45, 0.55, 0.65, 0.9, 0.2]).view(6, 1, 1, 1).expand(6, 1, 2, 2)
    y = torch.tensor([0, 0, 1, 1, 1, 1])  # the last is misclassified, the second and third are within the radius

    def batches() -> Iterator[Batch]:
        for rows in torch.arange(6).split(4):
            yield Batch(x[rows], y[rows], rows, 0.0, KeyedRNG(rows))

    found = best_epoch.judged(lambda x: [Threshold()(x)], Linf(0.1), batches())
    assert found["clean"] == pytest.approx(5 / 6)
    assert found["robust"] == pytest.approx(3 / 6)
    assert found["images"] == 6
    assert found["attack"].startswith("PGD-10(Linf:0.1, step=0.025")


def test_fit_logs_each_epoch_and_writes_the_card(tmp_path: Path) -> None:
    images, networks = toy_images(), with_roles_of(SMALL, toy_cast())
    config = TrainingConfig(keep_best=0.2)
    defense: Any = fit(SMALL, images, networks, run=tmp_path, config=config)
    lines = [line for line in (tmp_path / "train.jsonl").read_text().splitlines() if '"held_out"' in line]
    assert len(lines) == 4
    assert all('"images": 8' in line for line in lines)
    assert defense.card.kept == read_versioned(tmp_path / "kept.json")["kept"]
    plain: Any = fit(SMALL, images, with_roles_of(SMALL, toy_cast()), config=TrainingConfig())
    assert plain.card.kept == {}


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, "half", float("nan")])
def test_fit_with_an_invalid_share_raises(share: Any) -> None:
    with pytest.raises(InputError, match="expected a share of the images above 0 and below 1"):
        train(SMALL, toy_images(), toy_cast(), keep_best=share)


@pytest.mark.parametrize(("share", "count"), [(0.001, 0), (0.999, 40)])
def test_fit_with_a_share_that_leaves_nothing_raises(share: float, count: int) -> None:
    with pytest.raises(InputError, match=f"holds out {count} of 40 training images"):
        train(SMALL, toy_images(), toy_cast(), keep_best=share)


@pytest.mark.parametrize(
    ("recipe", "words"), [(Natural(), "has no attack"), (Robustifier(), "keeps its best epoch already")]
)
def test_fit_with_best_epoch_of_another_recipe_raises(recipe: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        train(recipe, toy_images(), toy_cast(), keep_best=0.1)


@pytest.mark.parametrize("name", RECIPES)
def test_recommended_config_suits_each_recipe(name: str) -> None:
    recipe = RECIPES[name]()
    config = TrainingConfig.recommended(recipe)
    config.check(recipe)
    assert config.ema is not None
    assert (config.keep_best is None) == (recipe.inner_attack() is None or name in LEFT_OUT)


LEFT_OUT = {"ape-gan", "hgd", "nrp", "robustifier", "transfer"}


def test_default_config_leaves_the_manifest_as_it_was() -> None:
    assert {name: value for name, value in TrainingConfig().settings().items() if value is not None} == {
        "precision": "fp32",
        "inner_attack": "AsPublished",
    }


@pytest.mark.parametrize("recipe", [HGD(Linf(0.1), steps=1, epochs=1), Adversarial(Linf(0.1), steps=1, epochs=1)])
def test_fit_keeps_the_best_epoch_of_other_recipes(recipe: Any, tmp_path: Path) -> None:
    networks = train(recipe, toy_images(), toy_cast(guides=1), keep_best=0.2, run=tmp_path)
    kept = read_versioned(tmp_path / "kept.json")["kept"]
    assert kept["images"] == 8
    _, held = best_epoch.hold_out(toy_images(), 0.2, 0)
    x, y, _ = held.batch(torch.arange(8))
    if isinstance(recipe, HGD):
        x, f = networks.preprocessor.eval()(x), networks.guides[0]
    else:  # the guides and the preprocessor are not those of this recipe
        f = networks.classifier.eval()
    assert kept["clean"] == float((f(x).argmax(1) == y).double().mean())
