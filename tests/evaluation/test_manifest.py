"""What a folder's summary counts: another evaluation is refused its place, more of the same is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import done, refused
from helpers.threshold_classifier import Threshold, levels
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from forefend import data
from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.cli.main import main
from forefend.data import ImageDataset
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.manifest import Manifest
from forefend.evaluation.suites.general import curve
from forefend.evaluation.trial import with_copies
from forefend.models.defended import Defended
from forefend.threat_models.lp import Linf

ONE = EvaluatedModel("one", Threshold())
TWO = EvaluatedModel("two", nn.Sequential(Threshold(), nn.Identity()))
GUARDED = EvaluatedModel("one", Defended(nn.Identity(), Threshold()), defended=True)


def shifted(images: ImageDataset) -> ImageDataset:
    """Other pixels of the same name."""
    return replace(images, pixels=images.pixels * 0.5)


FIRST = {"models": [ONE], "data": levels(2), "suite": curve([Linf(0.1)])}


def judge(folder: Path, **changes: Any) -> None:
    evaluate(**(FIRST | changes), folder=folder, allow_weak=True)


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"models": [EvaluatedModel("one", TWO.network)]}, "its one is another network"),
        ({"models": [GUARDED]}, "it holds one"),
        ({"models": [TWO, GUARDED]}, "it holds one"),
        ({"suite": curve([Linf(0.2)])}, "it holds the trial "),
        ({"suite": []}, "it holds the trial "),
        ({"data": data.sample(levels(2), 20, seed=0)}, "it holds 40 images, not 20"),
        ({"data": replace(levels(2), index=torch.arange(40) + 7)}, "it holds other images"),
        ({"data": shifted(levels(2))}, "it holds other images"),
        ({"seed": 1}, "its seed is 0, not 1"),
    ],
)
def test_evaluate_refuses_to_replace_another_summary(changes: dict[str, Any], lost: str, tmp_path: Path) -> None:
    judge(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError) as error:
        judge(tmp_path, **changes)
    assert f"holds the summary.json of another evaluation ({lost}" in str(error.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_evaluate_names_a_summary_without_answers(tmp_path: Path) -> None:
    judge(tmp_path)
    path = tmp_path / "evaluation.json"
    held = json.loads(path.read_text())
    held["models"] = {name: key.rpartition(":")[0] for name, key in held["models"].items()}
    path.write_text(json.dumps(held))
    with pytest.raises(InputError, match="older version evaluated its one and did not record what it answered"):
        judge(tmp_path)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"models": [TWO, ONE, GUARDED]},
        {"suite": curve([Linf(0.2), Linf(0.1)])},
        {"batch_size": 7},
    ],
)
def test_evaluate_of_the_same_and_more_is_accepted(more: dict[str, Any], tmp_path: Path) -> None:
    judge(tmp_path)
    judge(tmp_path, **more)
    judge(tmp_path, **more)


def test_evaluate_accepts_a_changed_name(tmp_path: Path) -> None:
    judge(tmp_path)
    judge(tmp_path, models=[EvaluatedModel("one 3f2a", ONE.network), EvaluatedModel("one 77b0", TWO.network)])


def test_evaluate_interrupted_leaves_no_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(PGD, "advance", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            judge(tmp_path, suite=curve([Linf(0.1), Linf(0.2)]))
    judge(tmp_path)


def test_manifest_names_the_effective_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    judge(tmp_path, suite=with_copies(curve([Linf(0.1)])))
    (trial,) = json.loads((tmp_path / "evaluation.json").read_text())["trials"]
    assert "[white_box in fp32]" in trial


def test_evaluate_command_refuses_before_timing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = (
        "evaluate --classifiers mlp@random --data digits --images 8 --allow-weak-classifier --threat Linf:0.1 --out e"
    )
    done(line)
    capsys.readouterr()
    assert main(f"{line} --seed 1 --processes 2 --batch-size 4".split()) == 2
    assert "At most" not in capsys.readouterr().out


def test_evaluate_more_images_is_accepted(tmp_path: Path) -> None:
    judge(tmp_path, data=levels(2).subset(data.sample(levels(2), 20, seed=0).index))
    judge(tmp_path)


def test_evaluate_without_summary_is_accepted(tmp_path: Path) -> None:
    judge(tmp_path)
    (tmp_path / "summary.json").unlink()
    judge(tmp_path, seed=1)
    (tmp_path / "evaluation.json").unlink()  # as older evaluations leave it
    judge(tmp_path, seed=2)
    (tmp_path / "evaluation.json").write_text("[]")
    with pytest.raises(InputError, match=r"evaluation\.json is not of an evaluation"):
        judge(tmp_path)


def test_manifest_names_models_trials_and_versions(tmp_path: Path) -> None:
    judge(tmp_path)
    told = json.loads((tmp_path / "evaluation.json").read_text())
    assert set(told) == {"format", "models", "trials", "images", "index", "pixels", "seed", "about"}
    lines = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert list(told["models"].values()) == list({line["model"] for line in lines})
    assert {"none", *told["trials"]} == {line["trial"] for line in lines}
    assert "forefend" in told["about"]["versions"]


asked = st.builds(
    Manifest,
    st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), min_size=1),
    st.lists(st.sampled_from("pqr"), unique=True),
    st.integers(1, 3),
    st.sets(st.sampled_from("78")).map(lambda numbers: " ".join(sorted(numbers))),
    st.sampled_from(["light", "dark"]),
    st.integers(0, 1),
)


@given(asked, asked)
def test_manifest_refuses_exactly_lost_results(old: Manifest, new: Manifest) -> None:
    holds = set(old.models.values()) <= set(new.models.values()) and set(old.trials) <= set(new.trials)
    holds = holds and old.images <= new.images and old.seed == new.seed
    holds = holds and set(old.index.split()) <= set(new.index.split())
    holds = holds and (old.index != new.index or old.pixels == new.pixels)
    assert (next(new._missing(old), None) is None) == holds


def test_evaluate_command_refuses_another_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = "evaluate --data digits --images 8 --allow-weak-classifier --threat Linf:0.1 --classifiers"
    for place, seed in (("a", 0), ("b", 1)):
        done(f"train natural --data digits --images 40 --classifier mlp --epochs 1 --seed {seed} --out {place}/net")
    done(f"{line} a/net")
    assert "(its net is another network" in refused(f"{line} b/net")
    done(f"{line} b/net --out elsewhere")
