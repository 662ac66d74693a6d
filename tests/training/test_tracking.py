"""Trackers are told the lines of the log once each, change nothing of the training, and cannot stop it."""

from __future__ import annotations

import importlib.machinery
import io
import json
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.told_tracker import ToldTracker
from helpers.toy_networks import Stopping, same, toy_cast, toy_images, train, trained
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from forefend.checks import InputError
from forefend.recipes import RTFE, Adversarial, Natural
from forefend.threat_models.lp import Linf
from forefend.training import checkpoint, tracking
from forefend.training.trackers import TRACKERS, check_trackers
from forefend.training.trainer import fit

SMALL = RTFE(Linf(0.1), steps=1, epochs=2, batch_size=16)  # three steps an epoch
LINES = [3, 6]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def numbers(line: dict[str, Any], above: str = "") -> dict[str, float]:
    """The numbers of a line by their path, written differently from the code under test."""
    found: dict[str, float] = {}
    for key, value in line.items():
        if isinstance(value, dict):
            found |= numbers(value, f"{above}{key}/")
        elif not isinstance(value, str) and key != "step":
            found[above + key] = value
    return found


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard"), {"images": 0, "scalars": 0})
    found.Reload()
    return found


def stopped(folder: Path, batch: int, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, toy_images(), toy_cast(), run=folder, augment=Stopping(batch), checkpoint_every=0.0, **options)


def test_tensorboard_holds_every_number_of_the_log(tmp_path: Path) -> None:
    train(SMALL, toy_images(), toy_cast(), run=tmp_path, track="tensorboard", keep_best=0.2)
    found, told = events(tmp_path), lines(tmp_path)
    expected = {tag: [(line["step"], np.float32(value)) for line in told] for tag, value in numbers(told[0]).items()}
    for tag in expected:
        expected[tag] = [(line["step"], np.float32(numbers(line)[tag])) for line in told]
    assert {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]} == expected
    assert {"loss/preprocessor", "lr/preprocessor", "held_out/robust", "accuracy/fgsm"} <= expected.keys()
    (text,) = found.Tensors("configuration/text_summary")
    assert b"| settings/steps | 1 |" in text.tensor_proto.string_val[0]


def test_log_holds_the_learning_rate_of_the_last_step(tmp_path: Path) -> None:
    own = RTFE(Linf(0.1), steps=1, epochs=2, batch_size=16, lr=0.4, milestones=[0.5], decay=0.1)
    train(own, toy_images(), toy_cast(), run=tmp_path)
    assert [line["lr"]["preprocessor"] for line in lines(tmp_path)] == pytest.approx([0.4, 0.04])


def test_pictures_are_images_of_the_training_enlarged(tmp_path: Path) -> None:
    train(SMALL, toy_images(), toy_cast(), run=tmp_path, track="tensorboard")
    found = events(tmp_path)
    names = {"examples/clean", "examples/attacked"}
    assert set(found.Tags()["images"]) == names | {f"{name}, processed" for name in names}
    pictures = {}
    for name in found.Tags()["images"]:
        shown = found.Images(name)
        assert [picture.step for picture in shown] == LINES
        pictures[name] = np.asarray(Image.open(io.BytesIO(shown[-1].encoded_image_string)))
    scale = 64 // 6
    clean = pictures["examples/clean"][scale // 2 :: scale, scale // 2 :: scale][:6, :6, 0]
    stored = toy_images().batch(torch.arange(40))[0][:, 0]
    assert min(int(np.abs(clean - (255 * one.numpy()).round()).max()) for one in stored) == 0
    moved = pictures["examples/attacked"].astype(int) - pictures["examples/clean"]
    assert 0 < np.abs(moved).max() <= round(0.1 * 255) + 1


def test_pictures_leave_out_what_a_training_does_not_have(tmp_path: Path) -> None:
    for recipe, titles in (
        (Natural(epochs=1, batch_size=16), {"examples/clean"}),
        (Adversarial(Linf(0.1), steps=1, epochs=1, batch_size=16), {"examples/clean", "examples/attacked"}),
    ):
        told = ToldTracker(tmp_path / type(recipe).__name__)
        train(recipe, toy_images(), toy_cast(), run=tmp_path / f"{type(recipe).__name__}-run", track=told)
        (call,) = told.calls("log_images")
        assert call["shapes"] == {title: [4, 60, 60, 3] for title in titles}


def test_pictures_are_made_about_ten_times(tmp_path: Path) -> None:
    told = ToldTracker(tmp_path / "told")
    train(Natural(epochs=25, batch_size=40), toy_images(), toy_cast(), run=tmp_path / "run", track=told)
    assert told.steps() == list(range(1, 26))
    assert [call["step"] for call in told.calls("log_images")] == [*range(3, 25, 3), 25]


def test_pictures_are_not_made_for_a_tracker_that_takes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forefend.training.trainer.examples", lambda loop: pytest.fail("made pictures"))
    monkeypatch.delattr(ToldTracker, "log_images")
    told = ToldTracker(tmp_path / "told")
    train(SMALL, toy_images(), toy_cast(), run=tmp_path / "run", track=told)
    assert told.steps() == LINES


@pytest.mark.parametrize("recipe", [SMALL, Adversarial(Linf(0.1), steps=1, epochs=2, batch_size=16)])
def test_tracking_changes_no_weight(recipe: Any, tmp_path: Path) -> None:
    plain = trained(train(recipe, toy_images(), toy_cast(), run=tmp_path / "plain", ema=0.9, keep_best=0.2))
    told = ["tensorboard", ToldTracker(tmp_path / "told")]
    tracked = trained(train(recipe, toy_images(), toy_cast(), run=tmp_path / "a", ema=0.9, keep_best=0.2, track=told))
    assert same(plain, tracked)
    assert lines(tmp_path / "a") == lines(tmp_path / "plain")


def test_resuming_tells_each_step_once(tmp_path: Path) -> None:
    told, run = ToldTracker(tmp_path / "told"), tmp_path / "run"
    stopped(run, 4, track=[told, "tensorboard"])
    assert told.steps() == [3]
    assert len(told.calls("finish")) == 1
    train(SMALL, toy_images(), toy_cast(), run=run, track=[told, "tensorboard"])
    train(SMALL, toy_images(), toy_cast(), run=run, track=[told, "tensorboard"])  # nothing is left to do
    assert told.steps() == LINES
    assert len(told.calls("store_init_configuration")) == 1
    assert [e.step for e in events(run).Scalars("epoch")] == LINES
    assert json.loads((run / "tracking.json").read_text())["format"] == 1


def test_a_tracker_that_comes_later_is_told_what_was_before(tmp_path: Path) -> None:
    stopped(tmp_path / "run", 4)
    told = ToldTracker(tmp_path / "told")
    train(SMALL, toy_images(), toy_cast(), run=tmp_path / "run", track=told)
    assert [call["values"] for call in told.calls("log")] == [numbers(line) for line in lines(tmp_path / "run")]


def test_steps_that_no_checkpoint_holds_are_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object, **more: object) -> None:
        raise KeyboardInterrupt

    told = ToldTracker(tmp_path / "told")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", die)
        with pytest.raises(KeyboardInterrupt):
            train(SMALL, toy_images(), toy_cast(), run=tmp_path / "run", track=told)
    assert len(lines(tmp_path / "run")) == 1
    assert told.steps() == []


def test_a_training_that_starts_over_begins_a_new_run(tmp_path: Path) -> None:
    told, run = ToldTracker(tmp_path / "told"), tmp_path / "run"
    train(SMALL, toy_images(), toy_cast(), run=run, track=[told, "tensorboard"])
    (run / "checkpoint.safetensors").unlink()
    train(SMALL, toy_images(), toy_cast(), run=run, track=[told, "tensorboard"])
    assert told.steps() == LINES * 2
    assert len(told.calls("store_init_configuration")) == 2
    assert [e.step for e in events(run).Scalars("epoch")] == LINES


@pytest.mark.parametrize("damaged", ["[", '{"trackers": {"told": 3}}', '{"trackers": 3}', '{"format": 9}'])
def test_a_damaged_state_of_trackers_begins_new_runs(damaged: str, tmp_path: Path) -> None:
    told, run = ToldTracker(tmp_path / "told"), tmp_path / "run"
    stopped(run, 4, track=told)
    (run / "tracking.json").write_text(damaged)
    train(SMALL, toy_images(), toy_cast(), run=run, track=told)
    assert told.steps() == [3, *LINES]


@pytest.mark.parametrize("call", ["start", "store_init_configuration", "log", "log_images", "finish"])
def test_a_failing_tracker_is_named_once_and_training_goes_on(
    call: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = trained(train(SMALL, toy_images(), toy_cast()))
    capsys.readouterr()
    told, other = ToldTracker(tmp_path / "told", fails=(call,)), ToldTracker(tmp_path / "other")
    other.name = "other"  # type: ignore[misc]
    assert same(trained(train(SMALL, toy_images(), toy_cast(), run=tmp_path / "run", track=[told, other])), expected)
    out = capsys.readouterr().out
    assert out.count("WARNING: told is told nothing more of this training (ConnectionError: no server answers)") == 1
    assert out.count("WARNING") == 1
    assert other.steps() == LINES


def test_a_tracker_that_does_not_answer_delays_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its server answers when the training has ended and left it; what it does then changes nothing in the run."""
    answers, run = threading.Event(), tmp_path / "run"
    monkeypatch.setattr(tracking, "WAIT", 0.05)
    monkeypatch.setattr(ToldTracker, "start", lambda self: answers.wait(60) and None)
    train(SMALL, toy_images(), toy_cast(), run=run, track=[ToldTracker(tmp_path / "told"), "tensorboard"])
    assert "WARNING: told is told nothing more of this training (it does not answer for 0 s" in capsys.readouterr().out
    assert [line["step"] for line in lines(run)] == LINES
    before = (run / "tracking.json").read_text() if (run / "tracking.json").exists() else ""
    answers.set()
    for thread in threading.enumerate():
        if thread.name.startswith("tracker "):
            thread.join()
    assert "told" not in before
    assert '"told"' not in (run / "tracking.json").read_text()


def test_a_tracker_that_failed_is_told_what_it_missed(tmp_path: Path) -> None:
    stopped(tmp_path / "run", 4, track=ToldTracker(tmp_path / "told", fails=("log",)))
    told = ToldTracker(tmp_path / "told")
    assert told.steps() == []
    train(SMALL, toy_images(), toy_cast(), run=tmp_path / "run", track=told)
    assert told.steps() == LINES


def fake(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module in place of a tracker's package; its functions are given by the test."""
    module: Any = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    monkeypatch.setitem(sys.modules, name, module)
    return module


class FakeRun:
    """The run of a fake tracker."""

    def __init__(self, name: str) -> None:
        self.id = self.name = name
        self.told: list[tuple[dict[str, Any], int]] = []

    def log(self, values: dict[str, Any], step: int) -> None:
        self.told.append((values, step))

    def finish(self) -> None:
        self.told.append(({}, -1))


@pytest.mark.parametrize(("name", "key"), [("wandb", "id"), ("trackio", "name")])
def test_wandb_and_trackio_continue_their_run(
    name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, begun = fake(name, monkeypatch), list[dict[str, Any]]()
    runs: list[FakeRun] = []

    def init(**options: Any) -> FakeRun:
        begun.append(options)
        runs.append(FakeRun(options[key] or "made by the server"))
        return runs[-1]

    stored: list[dict[str, Any]] = []
    module.init, module.Image = init, lambda picture: picture.shape
    module.config = types.SimpleNamespace(update=lambda values, **options: stored.append(values))
    stopped(tmp_path / "mine", 4, track=name)
    train(SMALL, toy_images(), toy_cast(), run=tmp_path / "mine", track=name)
    assert [options["project"] for options in begun] == ["forefend"] * 2
    assert begun[1][key] == runs[0].id
    assert begun[1]["resume"] == "allow"
    assert [values["seed"] for values in stored] == [0]
    steps = [[step for values, step in run.told if "epoch" in values or step < 0] for run in runs]
    assert steps == [[3, -1], [6, -1]]
    shown = [values["examples/attacked"] for values, _ in runs[1].told if "examples/attacked" in values]
    assert shown == ([[(60, 60, 3)] * 4] if name == "wandb" else [])


def test_mlflow_continues_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, begun, told = fake("mlflow", monkeypatch), list[dict[str, Any]](), list[int | None]()

    def start_run(**options: Any) -> Any:
        begun.append(options)
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=options["run_id"] or "made by the server"))

    module.search_experiments, module.create_experiment = lambda filter_string: [], lambda **options: "1"
    module.start_run, module.log_params, module.end_run = start_run, lambda values: None, lambda: told.append(None)
    module.log_metrics = lambda values, step: told.append(step)
    limits = types.SimpleNamespace(MAX_PARAM_VAL_LENGTH=6000, MAX_PARAMS_TAGS_PER_BATCH=100)
    module.utils = types.SimpleNamespace(validation=limits)
    with monkeypatch.context() as environment:
        environment.setenv("MLFLOW_TAGS", "{")  # accelerate reads it when the tracker is made
        train(SMALL, toy_images(), toy_cast(), run=tmp_path / "tags", track="mlflow")
    assert not begun
    assert lines(tmp_path / "tags")
    stopped(tmp_path / "mine", 4, track="mlflow")
    train(SMALL, toy_images(), toy_cast(), run=tmp_path / "mine", track="mlflow")
    assert [options["run_id"] for options in begun] == [None, "made by the server"]
    assert begun[0]["run_name"] == "mine"
    assert told == [3, None, 6, None]


@pytest.mark.parametrize(
    ("track", "says"),
    [
        ("tensorbord", "There is no tracker called 'tensorbord': did you mean 'tensorboard'"),
        ("comet", "There is no tracker called 'comet': choose one of mlflow, tensorboard, trackio, wandb."),
        (["tensorboard", "tensorboard"], "The trackers are tensorboard, tensorboard, expected each name once."),
        (3, "A tracker is a int, expected a name or a GeneralTracker of accelerate."),
    ],
)
def test_unusable_trackers_are_refused(track: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        train(SMALL, toy_images(), toy_cast(), run=tmp_path / "run", track=track)
    assert says in str(refusal.value)
    assert not (tmp_path / "run").exists()


def test_a_tracker_without_its_package_or_a_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"tensorboard is told what the log of a run says: give a folder"):
        fit(SMALL, toy_images(), toy_cast(), track="tensorboard")
    for name, kind in TRACKERS.items():
        monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
        with pytest.raises(InputError) as refusal:
            check_trackers(name, "run")
        assert str(refusal.value) == f"Tracking with {name} needs {kind.package}: pip install {kind.install}."
