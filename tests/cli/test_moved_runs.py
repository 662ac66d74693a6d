"""A run is a folder that moves: renamed, copied or zipped, it is evaluated as before."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import done, guide, refused

import forefend as ff
from forefend.models.fingerprint import fingerprint
from forefend.runtime.run_folder import Run
from forefend.training import run_guides

EVALUATE = "--images 20 --suite curve --threat Linf:0.1 Linf:0.2 --processes 1"
TRAIN = "train rtfe --data digits --epochs 1 --images 60 --steps 1"
OTHER = "train natural --classifier mlp --data digits --epochs 1 --images 60"


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the guide `runs/one` and the evaluated run `runs/run`, and the evaluation's output."""
    folder = tmp_path_factory.mktemp("once")
    shutil.copytree(guide(), folder / "runs" / "one")
    with contextlib.chdir(folder):
        done(f"{TRAIN} --guides runs/one --out runs/run")
        return folder, done(f"evaluate runs/run {EVALUATE}")


@pytest.fixture(autouse=True)
def here(once: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a copy of that folder."""
    shutil.copytree(once[0] / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(printed: str) -> str:
    """The table at the end of an evaluation, without the progress before it."""
    return printed[printed.index("classifier  ") :]


def verdicts(run: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in run.glob("evaluations/*/records.jsonl")}


def moved(how: str, run: Path, to: Path) -> Path:
    """Rename, copy, or zip and unzip the folder of a run; nothing remains in its old place."""
    to.parent.mkdir()
    if how == "zipped":
        archive = shutil.make_archive(str(to.parent / "run"), "zip", run.parent, run.name)
        shutil.unpack_archive(archive, to.parent)
        (to.parent / run.name).rename(to)
    elif how == "copied":
        shutil.copytree(run, to)
    else:
        return run.rename(to)
    shutil.rmtree(run)
    return to


@pytest.mark.parametrize("how", ["renamed", "copied", "zipped"])
def test_moved_run_continues_its_records(how: str, here: Path, once: tuple[Path, str]) -> None:
    before = verdicts(here / "runs" / "run")
    at = moved(how, here / "runs" / "run", here / "elsewhere" / "theirs")
    shutil.rmtree(here / "runs")
    assert table(done(f"evaluate {at} {EVALUATE}")) == table(once[1])
    assert verdicts(at) == before
    assert len(before) == 1
    x = torch.rand(2, 1, 8, 8)
    assert ff.load(at)(x).shape == x.shape


def test_config_names_guides_relative_to_the_run(here: Path) -> None:
    done(f"{TRAIN} --guides runs/one --out other/run")
    entries = [Run(here / at).config["guides"][0] for at in ("runs/run", "other/run")]
    assert [entry["spec"] for entry in entries] == ["../one", "../../runs/one"]
    assert {entry["name"] for entry in entries} == {"one"}
    (copy,) = (here / "runs" / "run" / "guides").iterdir()
    network = ff.resolve_classifier(str(copy), lambda split: ff.data.load("digits", split)).network
    assert fingerprint(network) == entries[0]["fingerprint"]


def test_guide_is_found_beside_a_moved_run_by_its_fingerprint(here: Path) -> None:
    """Without the copy in the run, the guide is found under another name, and another classifier is passed over."""
    (here / "runs").rename(here / "theirs")
    run = here / "theirs" / "run"
    shutil.rmtree(run / "guides")
    assert "one (guide)" in done(f"evaluate theirs/run {EVALUATE}")
    (here / "theirs" / "one").rename(here / "theirs" / "two")
    done(f"{OTHER} --out theirs/one")
    assert "one (guide)" in done(f"evaluate theirs/run {EVALUATE}")


def test_guide_that_is_nowhere_is_named_with_the_option(here: Path) -> None:
    shutil.rmtree(here / "runs" / "run" / "guides")
    (here / "else").mkdir()
    (here / "runs" / "one").rename(here / "else" / "one")
    told = refused(f"evaluate runs/run {EVALUATE}")
    assert told.startswith(
        "The guide one of runs/run is neither in that folder nor beside it, nor at ../one or in runs:"
    )
    assert told.endswith("give its folder with --classifiers, or the folder that holds it with --runs.")
    assert "one (guide)" in done(f"evaluate runs/run {EVALUATE} --classifiers else/one")
    assert "one (guide)" in done(f"evaluate runs/run {EVALUATE} --runs else")
    assert "(runs/one/weights.safetensors" not in told
    shutil.copytree(here / "else" / "one", here / "runs" / "one")
    (here / "runs" / "one" / "weights.safetensors").write_bytes(b"none")
    assert "(runs/run/../one/weights.safetensors is damaged" in refused(f"evaluate runs/run {EVALUATE}")


def test_moved_run_resumes_its_training(here: Path) -> None:
    (here / "runs").rename(here / "theirs")
    before = (here / "theirs" / "run" / "config.json").read_bytes()
    done(f"{TRAIN} --guides theirs/one --out theirs/run")
    assert (here / "theirs" / "run" / "config.json").read_bytes() == before


def test_config_of_an_older_version_is_evaluated(here: Path) -> None:
    """Older versions wrote paths from the working folder, the demo without fingerprints, and copied nothing."""
    shutil.rmtree(here / "runs" / "run" / "guides")
    file = here / "runs" / "run" / "config.json"
    content = json.loads(file.read_text())
    old = {"name": "one", "spec": "runs/run/one", "mean": None, "std": None}
    file.write_text(json.dumps(content | {"config": content["config"] | {"guides": [old]}}))
    (here / "runs" / "one").rename(here / "runs" / "run" / "one")
    (here / "runs" / "run").rename(here / "moved")
    assert "one (guide)" in done(f"evaluate moved {EVALUATE}")
    shutil.rmtree(here / "moved" / "one")
    done(f"{OTHER} --out moved/one")
    assert "moved/one is no longer the classifier that this run learned from" in refused(f"evaluate moved {EVALUATE}")


FACTORY = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""
NONE = "--mean 0 --std 1 --allow-weak-classifier"


def test_exported_guide_moves_with_its_run(here: Path) -> None:
    module = dict[str, Any]()
    exec(FACTORY, module)
    dynamic = ({0: torch.export.Dim("b", min=1)},)
    exported = torch.export.export(module["net"]().eval(), (torch.rand(2, 1, 8, 8),), dynamic_shapes=dynamic)
    torch.export.save(exported, "mine.pt2")
    done(f"{TRAIN} --guides mine.pt2 {NONE} --out runs/theirs")
    assert Run(here / "runs" / "theirs").config["guides"][0]["spec"] == "../../mine.pt2"
    (here / "mine.pt2").unlink()
    (here / "runs" / "theirs").rename(here / "moved")
    assert "mine (guide)" in done(f"evaluate moved {EVALUATE} --allow-weak-classifier")


def test_python_file_of_a_run_is_not_executed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run may come from others: its config names a factory, and only one outside the run is called."""
    (here / "mine.py").write_text(FACTORY)
    done(f"{TRAIN} --guides mine.py:net {NONE} --out runs/theirs")
    assert "net (guide)" in done(f"evaluate runs/theirs {EVALUATE} --allow-weak-classifier")
    run = (here / "runs" / "theirs").rename(here / "theirs")
    (here / "mine.py").rename(run / "evil.py")
    (run / "evil.py").write_text(f"{FACTORY}\nraise SystemExit('executed')")
    config = (run / "config.json").read_text()
    for spec in ("evil.py:net", "evil:net", "process:touch executed"):
        (run / "config.json").write_text(config.replace("mine.py:net", spec))
        monkeypatch.chdir(run)
        assert "is neither in that folder nor beside it" in refused(f"evaluate . {EVALUATE} --allow-weak-classifier")
    assert not (run / "executed").exists()
    (here / "mine.py").write_text(FACTORY)
    line = f"evaluate . {EVALUATE} {NONE} --classifiers {here}/mine.py:net"
    assert "net (guide)" in done(line)


def test_large_guides_are_not_copied(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_guides, "LARGEST_COPY", 1000)
    told = "are not copied: keep them beside runs/large when you move it"
    assert told in done(f"{TRAIN} --guides runs/one --out runs/large")
    assert not (here / "runs" / "large" / "guides").exists()
