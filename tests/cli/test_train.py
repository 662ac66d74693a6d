"""How a training is done, as options of the command: refused early, written down only where it is not the papers'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import done, refused
from safetensors import safe_open
from torch import Tensor

from forefend.cli.train_work import WAYS, fields_of, ways_of
from forefend.models.defense import load
from forefend.recipes import RECIPES
from forefend.runtime import threads
from forefend.training import catastrophic_overfitting, trainer

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
    """The loop's own progress, as a checkpoint tells it."""
    with safe_open(checkpoint, framework="pt") as file:
        progress: dict[str, Any] = json.loads(file.metadata()["skeleton"])["mapping"]["progress"]["mapping"]
    return progress


def weights(folder: str) -> dict[str, Tensor]:
    with safe_open(Path(folder, "weights.safetensors"), framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)


def test_what_is_the_papers_is_not_written_down_so_that_old_runs_go_on(here: Path) -> None:
    done(f"{TINY} --out plain")
    done(
        f"{TINY} --out said --craft live --precision fp32 --inner as-published --on-collapse stop --sizes as-published"
    )
    assert run_config("plain") == run_config("said")
    assert not run_config("plain").keys() & WAYS.keys()
    assert load("plain").card.ema is None


def test_what_is_not_the_papers_is_and_is_gone_on_with_alone(here: Path) -> None:
    config = "--craft prepared-bf16 --precision bf16 --inner warm-started --ema 0.9 --on-collapse fall-back"
    done(f"{TINY} --out fast {config}")
    assert {name: value for name, value in run_config("fast").items() if name in WAYS} == {
        "craft": "prepared-bf16",
        "precision": "bf16",
        "inner": "warm-started",
        "ema": 0.9,
        "on_collapse": "fall-back",
    }
    assert load("fast").card.ema == 0.9
    assert "ema was 0.9, now None" in refused(f"{TINY} --out fast {config.replace('--ema 0.9', '')}")
    before = weights("fast")
    done(f"{TINY} --out fast {config}")
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights("fast").items())


def test_growing_images_are_written_down_and_gone_on_with_alone(here: Path) -> None:
    growing = f"{TINY.replace('mlp@random', 'tinyresnet@random')} --out small --epochs 3"
    done(f"{growing} --sizes growing")
    assert {name: value for name, value in run_config("small").items() if name in WAYS} == {"sizes": "growing"}
    before = weights("small")
    assert "sizes was 'growing', now None" in refused(growing)
    done(f"{growing} --sizes growing")
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights("small").items())
    done(growing.replace("--out small", "--out large"))
    assert not all(torch.equal(tensor, before[name]) for name, tensor in weights("large").items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--craft prepard", "no way of crafting called 'prepard': did you mean 'prepared'?"),
        ("--inner n-fgsm", "no inner attack called 'n-fgsm': choose one of as-published, gradual"),
        ("--precision fp16", "no precision called 'fp16': did you mean 'bf16'?"),
        ("--on-collapse go", "no answer to a collapse called 'go': choose one of fall-back, stop"),
        ("--ema 1", "average is 1, expected between 0 and 1"),
        ("--sizes growin", "no course of sizes called 'growin': did you mean 'growing'?"),
        ("--sizes growing", "Images of 4 × 4 pixels, with which training would begin, do not fit mlp@random"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(options: str, words: str, here: Path) -> None:
    assert words in refused(f"{TINY} --out never {options}")
    assert not (here / "never").exists()


@pytest.mark.parametrize(
    ("recipe", "inner", "steps", "watched"),
    [
        ("rtfe", "as-published", 7, False),
        ("rtfe", "as-published", 1, True),
        ("rtfe", "single-step", 7, True),
        ("rtfe", "gradual", 7, True),
        ("rtfe", "gradual", 40, False),
        ("trades", "as-published", 1, False),
        ("natural", "as-published", None, False),
    ],
)
def test_single_steps_are_watched(recipe: str, inner: str, steps: int | None, watched: bool) -> None:
    class Options(dict[str, Any]):
        __getattr__ = dict.__getitem__

    built = RECIPES[recipe](**({"steps": steps} if steps else {}))  # type: ignore[call-arg]
    config = ways_of(built, Options(WAYS | {"inner": inner}))
    assert (config.watch is not None) == watched
    if config.watch:
        assert config.watch.answer is catastrophic_overfitting.stop


def test_who_is_not_watched_takes_no_answer_to_a_collapse(here: Path) -> None:
    words = "Natural runs its own attack, unwatched: leave --on-collapse away."
    assert words in refused("train natural --data digits --images 20 --out never --on-collapse fall-back")
    line = "train rtfe --data digits --images 20 --guides mlp --steps 3 --out never --on-collapse fall-back"
    assert "No step of this training is a single one" in refused(line)
    assert not (here / "never").exists()


def test_no_recipe_has_a_setting_of_the_same_name() -> None:
    assert all(not {s.name for s in fields_of(name)} & WAYS.keys() for name in RECIPES)


def test_a_run_goes_on_with_the_threads_that_it_was_begun_with(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    number, seen = torch.get_num_threads(), list[int]()

    def watched(*given: Any, **more: Any) -> None:
        seen.append(torch.get_num_threads())
        take_all(*given, **more)

    take_all = trainer._take_all
    monkeypatch.setattr(trainer, "_take_all", watched)
    try:
        for fitting in (2, 1):
            monkeypatch.setattr(threads, "suitable_threads", lambda *_, fitting=fitting: fitting)
            done(f"{TINY} --out run")
            assert kept(here / "run" / "checkpoint.safetensors")["threads"]["value"] == 2
            assert torch.get_num_threads() == fitting  # whatever comes after
        assert seen == [2, 2]
    finally:
        torch.set_num_threads(number)
