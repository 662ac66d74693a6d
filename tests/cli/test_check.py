"""`forefend check`: exit codes, files, resuming, which records count, and refused input."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import Completed, done, files, forefend, guide, refused

import forefend as ff
from forefend.checks import InputError
from forefend.cli import resolve_models
from forefend.data import ImageDataset, sample
from forefend.data import load as load_images
from forefend.data.dataset import image_digests
from forefend.evaluation import result_store
from forefend.evaluation.gradient_masking import check as library
from forefend.evaluation.gradient_masking.check import check
from forefend.evaluation.gradient_masking.check_report import CheckReport, reports_in
from forefend.evaluation.gradient_masking.checks import GENERAL
from forefend.evaluation.identification import KnownModels, examine
from forefend.evaluation.records import Record
from forefend.evaluation.recount import recount
from forefend.evaluation.result_store import key_of
from forefend.evaluation.results import CLEAN
from forefend.models.classifiers.model_card import save_classifier
from forefend.models.defense import Defense, load
from forefend.models.freezing import frozen
from forefend.models.initialization import new_classifier
from forefend.models.preprocessors import build
from forefend.runtime import distributed, threads
from forefend.runtime.distributed import ProcessGroup
from forefend.runtime.files import append
from forefend.training.resolve_classifiers import resolve_classifier

RECORDS = "FAIL recorded attacks follow gradients of the defense"
LINE = "check run --images 8 --threat Linf:0.8"
KEYS = {"check", "measured", "bound", "status", "advice"}


@cache
def defended() -> Path:
    """A run with black-box records only, whose weights are replaced by those of an identity defense.

    A barely trained denoiser predicts one class, and AutoAttack would spend minutes on its correct images.
    """
    run = guide().parent / "hgd"
    done(f"train hgd --data digits --epochs 1 --images 100 --guides {guide()} --out {run}")
    card = replace(load(run).card, architecture="identity", settings={"channels": 1})
    Defense(build("identity", channels=1), card).save(run)
    attacked = "--images 8 --threat Linf:0.8 --suite black-box --allow-weak-classifier"
    done(f"evaluate {run} {attacked} --out {run}/evaluations/blind")
    return run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here: Path) -> Path:
    """A copy of that run."""
    shutil.copytree(defended(), here / "run")
    return here / "run"


def written(folder: Path) -> dict[str, list[dict[str, object]]]:
    """The results in check.json, by model."""
    content = json.loads((folder / "check.json").read_text(encoding="utf-8"))
    assert content["format"] == 1
    return {name: report["checks"] for name, report in content["reports"].items()}


def test_check_of_bare_classifier_passes_and_resumes(here: Path) -> None:
    line = f"check --classifiers {guide()} --data digits --images 8 --threat Linf:0.8 --out out"
    first = done(line)
    assert f"{guide().name}: passed" in first
    found = written(here / "out")
    assert list(found) == [guide().name]
    assert all(set(result) == KEYS and result["status"] != "failed" for result in found[guide().name])
    assert len(found[guide().name]) == 18
    before = (here / "out" / "records.jsonl").read_bytes()
    again = done(line)
    assert again[again.index(": passed") :] == first[first.index(": passed") :]
    assert (here / "out" / "records.jsonl").read_bytes() == before
    assert written(here / "out") == found


def test_library_check_equals_the_command(here: Path) -> None:
    done(f"check --classifiers {guide()} --data digits --images 8 --threat Linf:0.8 --out out")
    images = sample(load_images("digits", "test"), 8, 0)
    network = resolve_classifier(str(guide()), partial(load_images, "digits")).network
    report = ff.check(network, images, "Linf:0.8", folder=here / "library")
    ((command),) = written(here / "out").values()
    assert report.passed
    assert report.to_json()["checks"] == command
    assert [asdict(result) for result in report] == command
    assert written(here / "library") == {"classifier": command}


def test_check_of_black_box_records_fails_until_attacked(run: Path) -> None:
    answer = forefend(LINE)
    assert (answer.code, answer.err) == (1, "")
    assert f"{guide().name}: 1 of 18 checks FAILED" in answer.out
    assert f"\n  {RECORDS}\n" in answer.out
    assert "3 recorded attacks, none of them through the defense" in " ".join(answer.out.split())
    assert "what to do: evaluate with the suite standard" in answer.out
    assert (run / "check" / "records.jsonl").exists()
    ((found),) = written(run / "check").values()
    assert [result["check"] for result in found if result["status"] == "failed"] == [RECORDS.removeprefix("FAIL ")]
    (report,) = reports_in(run / "check" / "check.json")
    (evaluated,) = [one for one in recount(run / "evaluations" / "blind") if one.model.defended]
    assert report.defense == load(run).identity() == evaluated.model.defense
    assert evaluated.model.key.partition(":")[2].startswith(f"{report.network}:")
    # Records of checks never count as an evaluation.
    assert forefend(f"{LINE} --out run/elsewhere").code == 1
    assert forefend(LINE).code == 1
    done("evaluate run --images 8 --threat Linf:0.05 --suite quick --allow-weak-classifier --out run/evaluations/small")
    assert forefend(LINE).code == 1  # white-box attacks in another threat model
    done("evaluate run --images 8 --threat Linf:0.8 --suite quick --allow-weak-classifier --out run/evaluations/quick")
    assert forefend(LINE).code == 0


def test_check_without_records_prints_its_cost_first(run: Path) -> None:
    shutil.rmtree(run / "evaluations")
    out = done(LINE)
    assert "no records were given" in out
    assert out.index("At most ") < out.index("checks FAILED" if "checks FAILED" in out else "passed")
    assert "as measured on one batch" in out


def test_records_are_read_from_another_folder(run: Path, here: Path) -> None:
    shutil.move(run / "evaluations", here / "results")
    assert forefend(LINE).code == 0
    assert forefend(f"{LINE} --records results").code == 1
    shutil.rmtree(run / "check")
    (here / "empty").mkdir()
    assert refused(f"{LINE} --records empty").startswith("empty: no records.jsonl")
    assert not (run / "check").exists()


def test_records_of_other_models_do_not_count(run: Path, here: Path) -> None:
    text = (run / "evaluations" / "blind" / "records.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        line["model"] = "digits/test:0123456789abcdef:01234567"
    (here / "results").mkdir()
    (here / "results" / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    answer = forefend(f"{LINE} --records results")
    assert answer.code == 1
    assert "0 recorded attacks" in answer.out


def recorded(folder: Path, *records: Record) -> Path:
    """A folder of records."""
    folder.mkdir(parents=True, exist_ok=True)
    for record in records:
        append(folder / "records.jsonl", record)
    return folder


BARE = "check --classifiers {guide} --data digits --images 8 --seed 1 --threat Linf:0.8 --records results --out out"
WHITE = "PGD in Linf:0.8 [white_box]"


def bare(folder: Path) -> tuple[str, ImageDataset]:
    """The key of the guide's records in a folder, and the images of `BARE`."""
    network = resolve_classifier(str(guide()), partial(load_images, "digits")).network
    images = sample(load_images("digits", "test"), 8, 1)
    known = KnownModels()
    key = key_of(known.identify(examine(frozen(network), images, "guide"), "guide"), images)
    known.save(folder)
    return key, images


def agreement(line: str = BARE) -> str:
    """What the check of the recorded accuracy measured."""
    forefend(line.format(guide=guide()))
    ((found),) = written(Path("out")).values()
    shutil.rmtree("out")
    return next(str(result["measured"]) for result in found if result["check"].startswith("the recorded accuracy"))  # type: ignore[attr-defined]


def test_only_attacked_images_count_as_robust(here: Path) -> None:
    """All images were classified and four attacked: one of those is robust; one was always misclassified."""
    key, images = bare(here / "results")
    index = images.index.tolist()
    clean = Record(key, CLEAN, 0, index, [False] * 7 + [True])
    attacked = Record(key, WHITE, 0, index[:4], [True, True, True, False])
    recorded(here / "results", clean, attacked)
    assert agreement().startswith("on 5 recorded images, accuracy 20.0 %")
    (here / "results" / "records.jsonl").unlink()
    recorded(here / "results", clean)
    assert agreement().startswith("not compared")  # never attacked


def test_records_of_other_data_or_weights_do_not_count(here: Path) -> None:
    key, images = bare(here / "results")
    index = images.index.tolist()
    x, y, _ = images.batch(torch.arange(8))
    own = Record(key, WHITE, 0, index[:2], [True, False], image_digests(x, y)[:2])
    data, weights, form, answers = key.split(":")
    others = [f"mnist/test:{weights}:{form}:{answers}", f"digits/train:{weights}:{form}:{answers}"]
    others += [f"{data}:{weights}:00000000:{answers}", f"{data}:{weights}:{form}:00000000"]
    stale = Record(key, WHITE, 0, index[2:4], [False, False], ["00000000", image_digests(x, y)[3]])
    recorded(here / "results", own, stale, *(Record(other, WHITE, 0, index, [False] * 8) for other in others))
    assert agreement().startswith("on 3 recorded images, accuracy 66.7 %")


def test_out_with_evaluation_records_is_refused(run: Path, here: Path) -> None:
    before = files(here)
    assert "evaluation's records" in refused(f"{LINE} --out run/evaluations/blind")
    assert files(here) == before
    # An interrupted check resumes from its own records.
    recorded(here / "out", Record("digits/test:0123456789abcdef:01234567", WHITE, 0, [0], [False]))
    (here / "out" / "check.json").write_text('{"format": 1, "reports": {}}')
    assert forefend(f"{LINE} --out out").code == 1


def test_interrupted_check_has_marked_its_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: object, **__: object) -> None:
        assert written(here / "out") == {}
        raise InputError("cut short")

    monkeypatch.setattr(library, "diagnose", cut)
    line = f"check --classifiers {guide()} --data digits --images 8 --threat Linf:0.8 --out out"
    asked: list[str] = []
    monkeypatch.setattr(threads, "choose_threads", lambda: asked.append("threads"))
    assert refused(line) == "cut short"
    assert asked == ["threads"]


def pretend(monkeypatch: pytest.MonkeyPatch, *, rank: int) -> None:
    """Make the command run as one of two processes."""
    for module in (distributed, library, result_store):
        monkeypatch.setattr(module, "process_group", lambda: ProcessGroup(rank, 2))


def test_models_are_moved_and_one_process_prints(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    went: list[tuple[int, str | None]] = []
    monkeypatch.setattr(resolve_models, "move_to_device", lambda networks, device: went.append((len(networks), device)))
    facts = {"logits": 0, "random": 0, "optimizes": 0, "has_gradient": 0, "probed": 8, "repeats": 1, "mixes": 0}
    monkeypatch.setattr(library, "diagnose", lambda *_: (facts, {}))
    given: list[list[str]] = []

    def noted(*arguments: Any, **more: Any) -> CheckReport:
        given.append(list(more["surrogates"]))
        return check(*arguments, **more)

    monkeypatch.setattr(library, "check", noted)
    images = load_images("digits", "test")
    for seed in (1, 2):
        (here / str(seed) / "net").mkdir(parents=True)
        save_classifier(here / str(seed) / "net", new_classifier("tinyresnet", images, seed), "tinyresnet", images)
    surrogates = "--surrogates 1/net 2/net"
    line = f"check --classifiers {guide()} --data digits --images 8 --threat Linf:0.8 {surrogates} --out out"
    line += " --device cpu"
    pretend(monkeypatch, rank=1)
    assert forefend(line) == Completed(1, "", "")
    assert went == [(3, "cpu")]
    assert not (here / "out").exists()
    pretend(monkeypatch, rank=0)
    assert forefend(line).code == 1
    assert len(written(here / "out")[guide().name]) == len(GENERAL)
    assert [len(set(names)) for names in given] == [2, 2]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("check", "No images were named"),
        ("check --data digits", "name a run, or a classifier"),
        ("check nowhere", "nowhere"),
        ("check --data digits --classifiers {guide} --images 0", "images is 0, expected at least 1"),
        ("check --data digits --classifiers {guide} --batch-size 0", "batch_size is 0, expected at least 1"),
        ("check --data digits --classifiers {guide} --threat L1:3", "no norm called 'L1'"),
        ("check --data digits --classifiers {guide} --threat Linf:0", "give Linf or L2 with one radius above 0"),
        ("check --data digits --classifiers {guide} --threat Wasserstein:0.1", "give Linf or L2"),
        ("check --data digits --classifiers {guide} --threat Linf:8", "did you mean 8/255"),
        ("check --data digits --classifiers {guide} --surrogates nobody", "nobody"),
        ("check --data digits --classifiers {guide} --device tpu", "device"),
        ("check --data digits --classifiers {guide} --imags 3", "did you mean --images"),
    ],
)
def test_bad_input_is_refused_before_any_work(line: str, words: str, here: Path) -> None:
    assert words in refused(line.format(guide=guide()))
    assert not list(here.rglob("records.jsonl"))
