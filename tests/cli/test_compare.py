"""`forefend compare`: baselines trained within the budget, all attacked, resumed, and refused input."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import done, files, guide, held_by_another, refused

import forefend as ff
from forefend import data
from forefend.checks import InputError
from forefend.evaluation import suites, trial
from forefend.evaluation.access import white_box
from forefend.evaluation.comparison import baselines, costs
from forefend.evaluation.comparison import compare as module
from forefend.threat_models.lp import Linf
from forefend.training.catastrophic_overfitting import Monitor

OPTIONS = "--images 8 --suite curve --denoiser narrow-unet --copies 2"
NAMES = ["undefended", "jpeg", "bit-depth", "total-variation", "denoised smoothing", "adversarial fine-tuning"]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work in an empty folder, and measure each latency in two rounds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(costs, "ROUNDS", 2)


def trained(out: str) -> None:
    done(
        f"train rtfe --data digits --epochs 1 --images 100 --steps 1 --relative-step 1 --threat Linf:0.1 "
        f"--guides {guide()} --out {out}"
    )


def compared(folder: Path) -> dict[str, Any]:
    (found,) = folder.rglob("compare.json")
    return json.loads(found.read_text())


def test_compare_trains_attacks_and_prices_all_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained("run")
    monkeypatch.setattr(Monitor, "measure", lambda *_: pytest.fail("monitoring is not in the budget"))
    weights = (guide() / "weights.safetensors").read_bytes()
    out = done(f"compare run {OPTIONS}")
    kept = compared(tmp_path / "run")
    rows = {row["name"].partition(" (")[0]: row for row in kept["rows"]}
    assert list(rows) == [*NAMES, "this defense"]
    assert out.splitlines()[-1] == kept["verdict"]
    assert re.search(r"^At most \d+ \w+ of attacks, as measured on one batch each", out, re.MULTILINE)
    assert kept["verdict"].startswith("Under attack ")
    assert [name for name, row in rows.items() if row["changed"]] == ["adversarial fine-tuning"]
    assert (guide() / "weights.safetensors").read_bytes() == weights
    assert all(row["clean"]["n"] == row["worst"]["n"] == 8 for row in rows.values())
    assert all(
        row["worst"]["radius"] == 0.1 and row["worst"]["accuracy"] <= row["clean"]["accuracy"] for row in rows.values()
    )
    prices = {name: row["price"] for name, row in rows.items()}
    for name in NAMES[-2:]:
        assert 0.5 * kept["budget_flops"] < prices[name]["training_flops"] <= kept["budget_flops"]
    assert prices["this defense"]["training_flops"] == kept["budget_flops"]
    assert {name for name, price in prices.items() if price["parameters"]} == {"denoised smoothing", "this defense"}
    assert prices["denoised smoothing"]["forward_flops"] == 2 * prices["this defense"]["forward_flops"]
    assert all(price["ms_alone"] > 0 and price["ms_batched"] > 0 for price in prices.values())
    assert rows["jpeg"]["attacked"].startswith("BPDA")
    assert kept["format"] == 1
    _resumes(tmp_path, out)
    _library_equals(kept)


def _library_equals(kept: dict[str, Any]) -> None:
    """The library function returns the rows that the command wrote, and resumes from its records."""
    images = data.sample(data.load("digits", "test"), 8, 0)
    found = ff.compare("run", images, suite="curve", denoiser="narrow-unet", copies=2)
    for row, written in zip(found.to_json()["rows"], kept["rows"], strict=True):
        assert {**row, "price": 0} == {**written, "price": 0}
        assert row["price"]["training_flops"] == written["price"]["training_flops"]
    assert found.verdict == kept["verdict"]
    assert str(found).endswith(found.verdict)


def _resumes(folder: Path, out: str) -> None:
    """The same command again trains and attacks nothing, and writes the same results."""
    before = {path: path.read_bytes() for path in folder.rglob("*.jsonl")}
    rows = compared(folder / "run")["rows"]
    again = done(f"compare run {OPTIONS} --device cpu")
    assert "epochs of" in out
    assert "epochs of" not in again
    assert before == {path: path.read_bytes() for path in folder.rglob("*.jsonl")}
    pairs = zip(rows, compared(folder / "run")["rows"], strict=True)
    assert all((a["clean"], a["worst"]) == (b["clean"], b["worst"]) for a, b in pairs)
    assert any(name.endswith("compare.md") for name in files(folder))


def test_compare_refuses_unusable_input(tmp_path: Path) -> None:
    trained("run")
    assert "did you mean" in refused("compare run --classifier natural-digits-tinyresnet-s1")
    assert "device called 'gpu'" in refused("compare run --device gpu")
    if not torch.cuda.is_available():
        assert "torch finds no CUDA" in refused("compare run --device cuda")
    assert "no suite called 'quikc'" in refused("compare run --suite quikc")
    assert "holds no defense" in refused(f"compare {guide()}")
    assert "sigma" in refused("compare run --sigma nan")
    assert "copies" in refused("compare run --copies 0")
    assert "no preprocessor architecture called 'dnccn'" in refused("compare run --denoiser dnccn")
    assert not (tmp_path / "run" / "compare").exists()
    assert "/proc/x cannot be created" in refused("compare run --images 8 --out /proc/x")
    assert not (tmp_path / "run" / "compare").exists()
    (tmp_path / "run" / "config.json").rename(tmp_path / "kept")
    assert "run was not trained by `forefend train`" in refused("compare run --data digits")
    (tmp_path / "kept").rename(tmp_path / "run" / "config.json")
    card = json.loads((tmp_path / "run" / "defense.json").read_text())
    card["guides"][0]["fingerprint"] = "0" * 16
    (tmp_path / "run" / "defense.json").write_text(json.dumps(card))
    assert "defense.json was edited after it was written (its guides)" in refused("compare run")
    card.pop("digests")
    (tmp_path / "run" / "defense.json").write_text(json.dumps(card))
    assert "is no longer the classifier that this run learned from" in refused("compare run")


def test_compare_takes_the_number_of_classes_from_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    trained("run")
    x, y, _ = data.load("digits", "test").batch(torch.arange(539))
    few = x[y < 3][:20], y[y < 3][:20]  # whose labels tell of three classes

    def stop(suite: object, threat: object, classes: int) -> None:
        raise InputError(f"made for {classes} classes")

    monkeypatch.setattr(module, "_trials", stop)
    with pytest.raises(InputError, match="made for 10 classes"):
        ff.compare("run", data=few, train_data=few)


def test_suites_are_adapted_to_each_model() -> None:
    terms = trial.Terms([Linf(0.1)], 10)
    quick = suites.SUITES["quick"](terms)
    both, _ = baselines.with_bpda(quick)
    assert [trial.name for trial in both] == [t.name for t in quick] + [f"{t.name} BPDA" for t in quick]
    only, _ = baselines.bpda_only(suites.SUITES["standard"](terms))
    assert all(trial.access.view is not white_box or not trial.gradients() for trial in only)
    assert {trial.name for trial in only} >= {"Square", "AutoAttack BPDA"}
    noisy, _ = baselines.with_eot(suites.SUITES["standard"](terms))
    assert all(trial.averages for trial in noisy)
    assert "rand" in str(noisy[0])


def test_compare_into_a_folder_that_another_holds_is_refused(tmp_path: Path) -> None:
    trained("run")
    with held_by_another(tmp_path / "out"):
        assert "Another process writes to out" in refused(f"compare run {OPTIONS} --out out")
    assert not (tmp_path / "run" / "compare").exists()  # nothing was trained
