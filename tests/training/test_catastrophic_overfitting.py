from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import done, refused
from helpers.toy_networks import Stopping, classifier, same, toy_cast, toy_images, train, trained
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.recipes import RTFE, TRADES, Adversarial, Natural
from forefend.recipes.base import Batch, Networks
from forefend.recipes.state import TrainState
from forefend.runtime.rng import KeyedRNG
from forefend.runtime.run_folder import Run
from forefend.threat_models.lp import Linf
from forefend.training.catastrophic_overfitting import Monitor, fall_back, stop
from forefend.training.inner_attacks import ATTA, AsPublished, InnerAttack, SingleNFGSM

SMALL = Adversarial(Linf(0.1), steps=2, epochs=4, batch_size=20)


@pytest.mark.parametrize(
    ("history", "detected"),
    [
        ([(0.6, 0.5), (0.6, 0.26)], False),  # above half of the best
        ([(0.6, 0.5), (0.9, 0.24)], True),
        ([(0.6, 0.5), (0.5, 0.24)], False),  # the single step fails as well: training fails otherwise
        ([(0.6, 0.5), (0.9, 0.3), (0.9, 0.24)], True),
        ([(0.1, 0.1), (0.9, 0.0)], True),
        ([(0.9, 0.0), (0.9, 0.0)], False),  # there was nothing to lose
    ],
)
def test_monitor_detects_lost_robustness_with_kept_fgsm_accuracy(
    history: list[tuple[float, float]], detected: bool
) -> None:
    state = TrainState()
    for epoch, (single, robust) in enumerate(history):
        Monitor(fall_back).update(state, {"fgsm": single, "pgd-10": robust}, epoch)
        if epoch < len(history) - 1:
            assert not state.fallen_back
    assert state.fallen_back == detected


def test_stop_raises_one_sentence_with_the_accuracies() -> None:
    state, monitor = TrainState(), Monitor(stop)
    monitor.update(state, {"fgsm": 0.6, "pgd-10": 0.5}, 1)
    with pytest.raises(InputError, match=r"epoch 2: .*128 .*1\.0% under PGD-10, .*50\.0% .*90\.0%.*fall_back"):
        monitor.update(state, {"fgsm": 0.9, "pgd-10": 0.01}, 2)


class Trap(nn.Module):
    """A class for every sign of the first pixel's excess over a half, which a full step passes by.

    The gradient points up; a whole step of 0.1 from 0.5 lands in a far band that is right again, and a small one in
    the near band that is wrong: as after overfitting.
    """

    def forward(self, x: Tensor) -> Tensor:
        t = x[:, 0, 0, 0] - 0.5
        near = (t > 0.01) & (t < 0.09)
        wrong = torch.where(near, 1.0, -1.0)
        return torch.stack((-wrong - t, wrong + t), 1)


def test_monitor_measures_a_trap_for_single_steps() -> None:
    x, y = torch.full((100, 1, 2, 2), 0.5), torch.zeros(100, dtype=torch.int64)
    batch = Batch(x, y, torch.arange(100), 0.0, KeyedRNG(torch.arange(100)))
    seen = Monitor(steps=2).measure(Networks(classifier=Trap()), Linf(0.1), batch)
    assert seen["fgsm"] == 1.0
    assert 0.4 < seen["pgd-2"] < 0.8  # two quarter steps from a random start end in the band, two whole ones beyond it


def overfits(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Let the monitor measure overfitting from an epoch on."""
    looks: list[int] = []

    def measure(self: Monitor, networks: Networks, threat: object, batch: Batch) -> dict[str, float]:
        looks.append(len(batch.x))
        return {"fgsm": 0.9, "pgd-10": 0.5 if len(looks) < at else 0.0}

    monkeypatch.setattr(Monitor, "measure", measure)


def test_fit_stops_after_overfitting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    overfits(monkeypatch, 2)
    with pytest.raises(InputError, match=r"^Catastrophic overfitting in epoch 2"):
        train(SMALL, toy_images(), toy_cast(), inner_attack=SingleNFGSM(), monitor=Monitor(), run=Run(tmp_path))
    log = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["accuracy"]["pgd-10"]) for line in log] == [(1, 0.5), (2, 0.0)]


@pytest.mark.parametrize(
    ("inner", "steps", "monitored"),
    [(AsPublished(), 1, True), (AsPublished(), 2, False), (ATTA(), 2, True), (ATTA(steps=(2,)), 2, False)],
)
def test_fit_monitors_single_steps_by_default(
    inner: InnerAttack, steps: int, monitored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    overfits(monkeypatch, 2)
    recipe = replace(SMALL, steps=steps)
    train(recipe, toy_images(), toy_cast(), inner_attack=inner, monitor=None)
    with pytest.raises(InputError, match=r"^Catastrophic overfitting in epoch 2") if monitored else nullcontext():
        train(recipe, toy_images(), toy_cast(), inner_attack=inner)


def test_fit_does_not_monitor_fixed_inner_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    overfits(monkeypatch, 2)
    train(TRADES(Linf(0.1), steps=1, epochs=3, batch_size=20), toy_images(), Networks(classifier=classifier()))


def test_train_with_fall_back_resumes_after_overfitting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    line = (
        "train rtfe --data digits --images 40 --guides mlp@random --allow-weak-classifier --epochs 3 --steps 3 "
        "--batch-size 20 --device cpu --inner-attack n-fgsm --out run"
    )
    overfits(monkeypatch, 2)
    assert "Catastrophic overfitting in epoch 2" in refused(line)
    assert "seed was 0, now 1" in refused(f"{line} --seed 1 --on-overfitting fall-back")
    overfits(monkeypatch, 1)
    assert "continuing with several steps." in done(f"{line} --on-overfitting fall-back")
    epochs = [json.loads(line)["epoch"] for line in Path("run/train.jsonl").read_text().splitlines()]
    assert epochs == [1, 2, 3]
    assert json.loads(Path("run/config.json").read_text())["config"]["on_overfitting"] == "fall-back"
    assert "on_overfitting was 'fall-back', now None" in refused(line)  # what was done is not said otherwise afterwards


def test_train_after_its_end_refuses_fall_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = (
        "train rtfe --data digits --images 40 --guides mlp@random --allow-weak-classifier --epochs 1 --steps 3 "
        "--batch-size 20 --device cpu --inner-attack n-fgsm --out run"
    )
    done(line)
    assert "on_overfitting was None, now 'fall-back'" in refused(f"{line} --on-overfitting fall-back")
    done(line)


def test_fall_back_continues_with_the_papers_attack(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(**options: object) -> list[Tensor]:
        return trained(train(SMALL, toy_images(), toy_cast(), inner_attack=SingleNFGSM(), **options))

    single = run()
    overfits(monkeypatch, 2)
    fallen = run(monitor=Monitor(fall_back))
    assert not same(fallen, single)
    assert capsys.readouterr().out.count("continuing with several steps.") == 1
    overfits(monkeypatch, 9)
    assert same(run(monitor=Monitor(fall_back)), single)


def test_fall_back_survives_resuming(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(**options: object) -> list[Tensor]:
        return trained(
            train(SMALL, toy_images(), toy_cast(), inner_attack=SingleNFGSM(), monitor=Monitor(fall_back), **options)
        )

    overfits(monkeypatch, 2)
    expected = run()
    overfits(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        run(run=Run(tmp_path), augment=Stopping(5), checkpoint_every=0)
    assert same(run(run=Run(tmp_path)), expected)


def test_monitor_logs_and_changes_no_weight(tmp_path: Path) -> None:
    plain = trained(train(SMALL, toy_images(), toy_cast()))
    assert same(
        trained(
            train(
                SMALL, toy_images(), toy_cast(), monitor=Monitor(images=12, single_steps_only=False), run=Run(tmp_path)
            )
        ),
        plain,
    )
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [sorted(line["accuracy"]) for line in lines] == [["fgsm", "pgd-10"]] * 4
    assert all(0 <= value <= 1 for line in lines for value in line["accuracy"].values())


def test_monitor_measures_guides_behind_the_preprocessor() -> None:
    networks = toy_cast()
    with torch.no_grad():
        networks.preprocessor[3].weight.zero_()
        networks.preprocessor[3].bias.zero_()  # every image comes out the same
    batch = Batch(*toy_images().batch(torch.arange(40)), 0.0, KeyedRNG(torch.arange(40)))  # type: ignore[arg-type]
    seen = Monitor().measure(networks.crafting(), Linf(0.1), batch)
    assert seen == {"fgsm": 0.25, "pgd-10": 0.25}


@pytest.mark.parametrize("wrong", [{"on_detection": "fall-back"}, {"images": 0}, {"steps": 0}])
def test_monitor_with_invalid_settings_raises(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        Monitor(**wrong)


def test_monitor_for_an_unsuitable_recipe_raises() -> None:
    with pytest.raises(InputError, match="Natural has no inner attack"):
        train(Natural(epochs=1), toy_images(), toy_cast(), monitor=Monitor(single_steps_only=False))
    always = Monitor(fall_back, single_steps_only=False)
    with pytest.raises(InputError, match="attack of TRADES is fixed"):
        train(TRADES(Linf(0.1), steps=1, epochs=1), toy_images(), toy_cast(), monitor=always)
    train(RTFE(Linf(0.1), steps=1, epochs=1), toy_images(), toy_cast(), monitor=Monitor())
