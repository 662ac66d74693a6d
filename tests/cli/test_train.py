"""Training options of `forefend train`: checked early, and saved if not default."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import done, refused
from safetensors import safe_open
from torch import Tensor

from forefend.cli import train
from forefend.cli.recommended import parse
from forefend.cli.train import TRAINING_OPTIONS, training_options
from forefend.models.defense import load
from forefend.recipes import RECIPES
from forefend.recipes.hyperparameters import hyperparameters_of
from forefend.runtime import threads
from forefend.training import catastrophic_overfitting, trainer
from forefend.training.config import TrainingConfig

TINY = (
    "train rtfe --data digits --images 40 --guides mlp@random --allow-weak-classifier --epochs 1 --steps 1 "
    "--batch-size 20 --device cpu"
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_config(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "config.json").read_text())["config"]
    return found


def kept(checkpoint: Path) -> dict[str, Any]:
    """The progress in a checkpoint."""
    with safe_open(checkpoint, framework="pt") as file:
        progress: dict[str, Any] = json.loads(file.metadata()["skeleton"])["mapping"]["state"]["mapping"]
    return progress


def weights(folder: str) -> dict[str, Tensor]:
    with safe_open(Path(folder, "weights.safetensors"), framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)


def test_train_config_omits_default_options(here: Path) -> None:
    done(f"{TINY} --out plain")
    config = "--attack-copy none --precision fp32 --inner-attack as-published --on-overfitting stop"
    done(f"{TINY} --out given {config}")
    assert run_config("plain") == run_config("given")
    assert not run_config("plain").keys() & TRAINING_OPTIONS.keys()
    assert load("plain").card.ema is None


def test_train_resumes_only_with_same_options(here: Path) -> None:
    config = "--attack-copy bf16 --precision bf16 --inner-attack atta --ema 0.9 --on-overfitting fall-back"
    done(f"{TINY} --out fast {config}")
    assert {name: value for name, value in run_config("fast").items() if name in TRAINING_OPTIONS} == {
        "attack_copy": "bf16",
        "precision": "bf16",
        "inner_attack": "atta",
        "ema": 0.9,
        "on_overfitting": "fall-back",
    }
    assert load("fast").card.ema == 0.9
    assert "ema was 0.9, now None" in refused(f"{TINY} --out fast {config.replace('--ema 0.9', '')}")
    before = weights("fast")
    done(f"{TINY} --out fast {config}")
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights("fast").items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--attack-copy fp31", "no attack copy called 'fp31': did you mean 'fp32'?"),
        ("--inner-attack n-fgms", "no inner attack called 'n-fgms': did you mean 'n-fgsm'?"),
        ("--atta-steps 2 3", "do not apply to --inner-attack as-published"),
        ("--inner-attack atta --atta-steps 0", "The steps of ATTA are (0,), expected"),
        ("--precision fp16", "no precision called 'fp16': did you mean 'bf16'?"),
        ("--on-overfitting go", "no reaction to overfitting called 'go': choose one of fall-back, stop"),
        ("--ema 1", "ema is 1.0, expected between 0 and 1"),
    ],
)
def test_train_with_wrong_option_writes_nothing(options: str, words: str, here: Path) -> None:
    assert words in refused(f"{TINY} --out never {options}")
    assert not (here / "never").exists()


@pytest.mark.parametrize(
    ("recipe", "inner", "steps", "monitored"),
    [
        ("rtfe", "as-published", 7, False),
        ("rtfe", "as-published", 1, True),
        ("rtfe", "n-fgsm", 7, True),
        ("rtfe", "gradual", 7, True),
        ("rtfe", "gradual", 40, False),
        ("trades", "as-published", 1, False),
        ("natural", "as-published", None, False),
    ],
)
def test_training_options_monitor_single_steps(recipe: str, inner: str, steps: int | None, monitored: bool) -> None:
    class Options(dict[str, Any]):
        __getattr__ = dict.__getitem__

    built = RECIPES[recipe](**({"steps": steps} if steps else {}))  # type: ignore[call-arg]
    config = training_options(built, Options(TRAINING_OPTIONS | {"inner_attack": inner}))
    monitor = config.monitor_for(built)
    assert (monitor is not None) == monitored
    if monitor:
        assert monitor.on_detection is catastrophic_overfitting.stop


def test_train_several_steps_with_on_overfitting_is_refused(here: Path) -> None:
    words = "--on-overfitting"
    assert words in refused("train natural --data digits --images 20 --out never --on-overfitting fall-back")
    line = "train rtfe --data digits --images 20 --guides mlp --steps 3 --out never --on-overfitting fall-back"
    assert words in refused(line)
    assert not (here / "never").exists()


def test_no_recipe_has_field_named_like_option() -> None:
    assert all(
        not {s.name for s in hyperparameters_of(recipe)} & TRAINING_OPTIONS.keys() for recipe in RECIPES.values()
    )


def test_train_resumes_with_number_of_threads_of_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    number, seen = torch.get_num_threads(), list[int]()

    def record(*given: Any, **more: Any) -> None:
        seen.append(torch.get_num_threads())
        take_all(*given, **more)

    take_all = trainer._run
    monkeypatch.setattr(trainer, "_run", record)
    try:
        for fitting in (2, 1):
            monkeypatch.setattr(threads, "suitable_threads", lambda *_, fitting=fitting: fitting)
            done(f"{TINY} --out run")
            assert kept(here / "run" / "checkpoint.safetensors")["threads"]["value"] == 2
            assert torch.get_num_threads() == fitting  # restored after training
        assert seen == [2, 2]
    finally:
        torch.set_num_threads(number)


def test_train_recommended_sets_defaults_and_says_so(here: Path) -> None:
    line = TINY.replace("--steps 1", "--steps 4")
    said = done(f"{line} --out runs/one --config recommended --ema 0.5 --keep-best 0.1")
    assert "recommended: --attack-copy bf16 --precision bf16 --ema 0.99 --ema-statistics 20 --keep-best 0.05" in said
    assert {name: value for name, value in run_config("runs/one").items() if name in TRAINING_OPTIONS} == {
        "attack_copy": "bf16",
        "precision": "bf16",
        "ema": 0.5,
        "ema_statistics": 20,
        "keep_best": 0.1,
        "inner_attack": "atta",
        "atta_steps": [2, 3],
        "atta_noise": 0.5,
    }
    assert load("runs/one").card.kept["images"] == 4
    done(f"{line} --out runs/two --config=recommended --inner-attack n-fgsm")
    assert not run_config("runs/two").keys() & {"atta_steps", "atta_noise"}


@pytest.mark.parametrize("name", RECIPES)
def test_recommended_options_make_the_recommended_config(name: str) -> None:
    parser = train._parser(name, RECIPES[name])
    build = partial(train._recipe, name)
    options = parse(parser, ["--config", "recommended"], build)
    recipe = build(options)
    made, expected = training_options(recipe, options), TrainingConfig.recommended(recipe)
    assert made.settings() == expected.settings()


def test_train_says_what_is_not_recommended(capsys: pytest.CaptureFixture[str]) -> None:
    parse(train._parser("hgd", RECIPES["hgd"]), ["--config", "recommended"], partial(train._recipe, "hgd"))
    assert "without --inner-attack: its attack is fixed" in capsys.readouterr().out


def test_train_with_a_share_that_leaves_nothing_writes_nothing(here: Path) -> None:
    assert "keep_best=0.01 holds out 0 of 40 training images" in refused(f"{TINY} --out never --keep-best 0.01")
    assert not (here / "never").exists()
