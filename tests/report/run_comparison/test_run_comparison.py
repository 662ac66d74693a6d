"""Runs side by side: what is shared is paired image by image, and what is not is said to be."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import evidence_runs
from helpers.command_line import done, refused
from helpers.toy_networks import classifier, trained_classifier

from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.data import sample
from forefend.evaluation.comparison.paired import PairedDifference
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import with_and_without
from forefend.evaluation.results import WORST
from forefend.evaluation.trial import Trial
from forefend.report.evidence.sources import read_run
from forefend.report.page.blocks import Notice, Page, Section, to_json
from forefend.report.page.html import to_html
from forefend.report.page.markdown import to_markdown
from forefend.report.run_comparison.cells import ComparedCell, compared_cells
from forefend.report.run_comparison.page import comparison
from forefend.threat_models.lp import Linf


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was evaluated on forty images."""
    return evidence_runs.make(tmp_path_factory.mktemp("runs") / "first")


def other(first: Path, name: str, **config: Any) -> Path:
    """A run with the same files, but for its evaluation."""
    folder = first.parent / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(first, folder, ignore=lambda _, names: [n for n in names if n in EVALUATION])
    held = json.loads((folder / "config.json").read_text())
    held["config"] |= config
    (folder / "config.json").write_text(json.dumps(held))
    return folder


EVALUATION = ("records.jsonl", "summary.json", "evaluation.json", "models.json", "pictures", "failures")


def cells_of(*folders: Path) -> dict[tuple[str, bool, str, float, str], ComparedCell]:
    found = compared_cells([read_run(folder) for folder in folders])
    return {(c.key.classifier, c.key.defended, c.key.norm, c.key.radius, c.key.attack): c for c in found}


def section(page: Page, name: str) -> Section:
    return next(one for one in page.sections if one.id == name)


def notices(page: Page) -> str:
    return "\n".join(block.text for block in section(page, "limits").blocks if isinstance(block, Notice))


def models(network: Any = None) -> list[Any]:
    return with_and_without(evidence_runs.defense(), "cnn", network or trained_classifier())


def trial_at(radius: float) -> Trial:
    return Trial("PGD-3", PGD(Linf(radius), 3, radius), Linf(radius))


def test_a_run_equals_its_copy(first: Path) -> None:
    copied = first.parent / "copied"
    shutil.copytree(first, copied, dirs_exist_ok=True)
    cells = cells_of(first, copied)
    assert len(cells) > 6
    for cell in cells.values():
        (difference,) = cell.differences
        assert isinstance(difference, PairedDifference), difference
        assert (difference.difference, difference.n, difference.gained, difference.lost) == (0, 40, 0, 0)
    page = comparison([first, copied])
    assert section(page, "limits").grade == "complete"
    assert "No option differs." in to_markdown(page)


def test_differences_are_those_of_the_records(first: Path) -> None:
    """Another defense is compared: counted here from the verdicts of each image, plainly."""
    second = other(first, "second")
    bare = [replace(model, defended=True, seen=True) for model in models() if not model.defended]
    evaluate(bare, evidence_runs.images(), evidence_runs.suite(), folder=second, allow_weak=True)
    cell = cells_of(first, second)["cnn", True, "Linf", 0.2, WORST]
    (difference,) = cell.differences
    assert isinstance(difference, PairedDifference)
    alone = json.loads((first / "evaluation.json").read_text())["models"]["cnn"]
    right = []
    for folder in (first, second):
        broken: set[int] = set()
        for line in map(json.loads, (folder / "records.jsonl").read_text().splitlines()):
            if (folder == second or line["model"] != alone) and " in Linf:0.2 " in f"{line['trial']} ":
                broken |= {index for index, wrong in zip(line["index"], line["misclassified"], strict=True) if wrong}
        right.append({*range(40)} - broken)
    assert difference.gained == len(right[1] - right[0])
    assert difference.lost == len(right[0] - right[1])
    assert difference.difference == pytest.approx((len(right[1]) - len(right[0])) / 40)


def test_other_images_are_told_and_only_the_shared_count(first: Path) -> None:
    second = other(first, "fewer")
    images = sample(evidence_runs.images(), 16, seed=1)
    evaluate(models(), images, evidence_runs.suite(), folder=second, allow_weak=True)
    for cell in cells_of(first, second).values():
        (difference,) = cell.differences
        assert isinstance(difference, PairedDifference)
        assert difference.n == 16
    said = notices(comparison([first, second]))
    assert "fewer has 16 images and first 40, and the difference counts the 16 in common: cnn on toy/test" in said


def test_other_attacks_have_no_difference(first: Path) -> None:
    second = other(first, "weaker")
    evaluate(models(), evidence_runs.images(), evidence_runs.suite()[:2], folder=second, allow_weak=True)
    cells = cells_of(first, second)
    assert cells["cnn", True, "Linf", 0.2, WORST].differences == ["other attacks"]
    assert isinstance(cells["cnn", True, "Linf", 0.2, "PGD-3"].differences[0], PairedDifference)
    assert isinstance(cells["cnn", True, "Linf", 0.1, WORST].differences[0], PairedDifference)
    assert cells["cnn", True, "Linf", 0.25, WORST].differences == ["not measured"]
    said = notices(comparison([first, second]))
    assert "weaker met PGD-3, and first PGD-3, PGD-5" in said
    assert "first was measured and weaker was not: cnn on toy/test, PGD-5 in Linf 0.2" in said


def test_other_threat_models_share_no_attacked_cell(first: Path) -> None:
    second = other(first, "wider")
    evaluate(models(), evidence_runs.images(), [trial_at(0.3)], folder=second, allow_weak=True)
    page = comparison([first, second])
    assert "wider was attacked in Linf 0.3, and first in Linf 0.1, Linf 0.2, Linf 0.25: no accuracy under" in notices(
        page
    )
    clean = next(cell for cell in to_json(page)["cells"] if cell["attack"] == "none")
    assert clean["differences"]["wider"]["n"] == 40


def test_a_run_without_evaluation_is_told(first: Path) -> None:
    second = other(first, "bare")
    assert "bare was not evaluated." in notices(comparison([first, second]))
    assert "first was not evaluated." not in notices(comparison([first, second]))
    spaced = other(first, "bare too")
    with_none = to_markdown(comparison([spaced, second]))
    assert "No run was evaluated." in with_none
    assert shlex.join(["forefend", "evaluate", str(spaced)]) in with_none
    assert shlex.join(["forefend", "report", str(spaced), str(second), "--html"]) in with_none


def test_another_classifier_of_the_same_name_has_no_difference(first: Path) -> None:
    second = other(first, "stranger")
    evaluate(models(classifier(7)), evidence_runs.images(), evidence_runs.suite(), folder=second, allow_weak=True)
    differences = {one for cell in cells_of(first, second).values() for one in cell.differences}
    assert differences == {"another classifier of this name"}
    assert "stranger and first have another classifier of this name" in notices(comparison([first, second]))


def test_other_data_shares_no_cell(first: Path) -> None:
    second = other(first, "elsewhere", data="else")
    images = replace(evidence_runs.images(), name="else")
    evaluate(models(), images, evidence_runs.suite(), folder=second, allow_weak=True)
    page = comparison([first, second])
    assert all(one == "not measured" for cell in cells_of(first, second).values() for one in cell.differences)
    assert "elsewhere was evaluated on else/test, and first on toy/test: no accuracy can be compared." in notices(page)
    assert "elsewhere was measured and first was not: cnn on else/test" in notices(page)
    assert "No accuracy of elsewhere can be compared with one of first" in to_markdown(page)
    assert "<svg" not in to_html(page)


def test_images_of_one_index_and_other_pixels_are_not_paired(first: Path) -> None:
    second = other(first, "changed")
    images = evidence_runs.images()
    images = replace(images, pixels=(images.pixels * 0.9))
    evaluate(models(), images, evidence_runs.suite(), folder=second, allow_weak=True)
    differences = {one for cell in cells_of(first, second).values() for one in cell.differences}
    assert differences == {"no image in common"}


def test_results_without_records_have_no_difference(first: Path) -> None:
    """Older versions did not write what a row is counted from."""
    second = first.parent / "older"
    shutil.copytree(first, second, dirs_exist_ok=True)
    held = json.loads((second / "evaluation.json").read_text())
    del held["about"]["counted"]
    (second / "evaluation.json").write_text(json.dumps(held))
    cells = cells_of(first, second)
    assert cells["cnn", True, "Linf", 0.2, "PGD-5"].measured[1] is not None
    assert {one for cell in cells.values() for one in cell.differences} == {"no records of the images"}
    assert "older and first have no records of the images: cnn on toy/test" in notices(comparison([first, second]))


def test_what_differs_in_configuration_is_listed(first: Path) -> None:
    second = first.parent / "configured"
    shutil.copytree(first, second, dirs_exist_ok=True)
    held = json.loads((second / "config.json").read_text())
    held["config"]["settings"]["epochs"] = 7
    held["config"]["guides"] = [{"name": "cnn", "fingerprint": "0123456789abcdef", "path": "x"}]
    (second / "config.json").write_text(json.dumps(held))
    (table,) = section(comparison([first, second]), "configuration").blocks
    assert table.rows == [["settings.epochs", "1", "7"], ["guides", "–", "cnn 01234567"]]  # type: ignore[union-attr]


def test_json_holds_every_number(first: Path) -> None:
    copied = first.parent / "copied"
    shutil.copytree(first, copied, dirs_exist_ok=True)
    held = json.loads(json.dumps(to_json(comparison([first, copied], confidence=0.99)), allow_nan=False))
    assert (held["format"], held["confidence"], list(held["runs"])) == (1, 0.99, ["first", "copied"])
    wide, narrow = (
        next(c for c in one["cells"] if (c["attack"], c["radius"], c["defended"]) == (WORST, 0.2, True))
        for one in (held, to_json(comparison([first, copied])))
    )
    assert wide["runs"]["first"]["n"] == 40
    assert wide["runs"]["first"]["high"] > narrow["runs"]["first"]["high"]
    assert wide["differences"]["copied"]["difference"] == 0
    assert wide["differences"]["copied"]["high"] > narrow["differences"]["copied"]["high"]


def test_command_writes_the_page_and_refuses_what_is_no_comparison(first: Path, tmp_path: Path) -> None:
    copied = first.parent / "copied"
    shutil.copytree(first, copied, dirs_exist_ok=True)
    file = tmp_path / "page.html"
    assert "MB; grade: complete" in done(f"report {first} {copied} --html {file}")
    assert "<svg" in file.read_text()
    assert "# Runs compared: first, copied" in done(f"report {first} {copied} --format markdown")
    assert json.loads(done(f"report {first} {copied} --format json"))["format"] == 1
    assert "states the claims of one run" in refused(f"report {first} {copied} --format sarif")
    assert "--about belongs to the page of one run" in refused(f"report {first} {copied} --html {file} --about x.yaml")
    assert "cannot be compared: give the folders of two different runs" in refused(
        f"report {first} {first} --html {file}"
    )
    assert "There is no folder" in refused(f"report {first} {tmp_path / 'none'} --html {file}")
    with pytest.raises(InputError, match="no folder cannot be compared"):
        comparison([])


def test_names_that_are_equal_become_paths_and_are_escaped(first: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "<script>alert(1)<" / "first"
    shutil.copytree(first, hostile)
    text = to_html(comparison([first, hostile]))
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;" in text
