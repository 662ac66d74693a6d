"""`forefend certify`: bare classifiers, runs, resumed certificates and refused options."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.command_line import done, files, refused

from forefend.evaluation.certification import certificate
from forefend.models.defense import Defense, DefenseCard
from forefend.models.preprocessors import build

LINE = "certify --data digits --images 6 --n 40 --n0 10 --alpha 0.01 --radii 0 0.1 --batch-size 64"
BARE = "tinyresnet@random --allow-weak-classifier"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_certify_again_reads_certificates(tmp_path: Path) -> None:
    line = f"{LINE} --classifiers {BARE} --out out"
    first = done(line)
    assert "1 model, 6 images, 50 noisy copies an image -> out" in first
    assert "6 images certified" in first
    assert "Only certify proves" in first
    before = (tmp_path / "out" / "certificates.jsonl").read_bytes()
    again = done(line)
    assert "images certified" not in again
    assert (tmp_path / "out" / "certificates.jsonl").read_bytes() == before
    assert len(certificate.read(tmp_path / "out" / "certificates.jsonl")) == 6
    assert first.splitlines()[-6:] == again.splitlines()[-6:]


def test_certify_run_has_both_pipelines(tmp_path: Path) -> None:
    done(f"train denoised-smoothing --data digits --images 40 --epochs 1 --guides {BARE} --out run --batch-size 20")
    table = done(f"{LINE} run --allow-weak-classifier")
    folder = next((tmp_path / "run" / "certificates").iterdir())
    found = certificate.read(folder / "certificates.jsonl")
    assert len(found) == 12
    names = list(dict.fromkeys(c.name for c in found))
    assert names[1] == f"{names[0]} defended"
    assert len({c.model for c in found}) == 2
    assert all(name in table for name in names)


BAD = {
    "--sigma 0": "sigma is 0, expected",
    "--sigma -0.5": "sigma is -0.5, expected",
    "--sigma nan": "sigma",
    "--alpha 0": "alpha given is 0, expected",
    "--alpha 1": "alpha given is 1, expected",
    "--n0 0": "0 ",
    "--n0 50": "50",
    "--n 5": "at least 10",
    "--n many": "--n does not accept 'many'",
    "--radii 0 0.5": "The radius 0.5 is out of reach",
    "--radii -1": "radius",
    "--images 0": "images is 0, expected at least 1",
    "--batch-size 0": "batch_size is 0, expected at least 1",
    "--seed -1": "seed is -1, expected",
    "--sigmas 1": "did you mean --sigma?",
}


@pytest.mark.parametrize("option", BAD)
def test_certify_with_bad_number_writes_nothing(here: Path, option: str) -> None:
    assert BAD[option] in refused(f"{LINE} --classifiers {BARE} {option}")
    assert files(here) == []


def test_certify_without_classifier_is_refused(here: Path) -> None:
    assert "Nothing to evaluate" in refused(LINE)
    Defense(build("identity", channels=1), DefenseCard("identity", {"channels": 1})).save(here / "bare")
    assert "bare has no classifier to defend: name one with --classifiers." in refused(f"{LINE} bare")


def test_certify_omits_radii_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 samples at sigma 0.25 prove at most 0.25 * 1.83, as 0.001^(1/200) = 0.966."""
    options = "--data digits --images 2 --n 200 --n0 10 --device cpu --allow-weak-classifier"
    table = done(f"certify --classifiers tinyresnet@random {options} --out out")
    assert [radius in table for radius in ("L2 0 ", "L2 0.25 ", "L2 0.5 ")] == [True, True, False]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch finds no CUDA" in refused(f"certify --classifiers {BARE} {options} --device cuda")
    assert "out of reach" in refused(f"certify --classifiers {BARE} {options} --radii 0.5")
