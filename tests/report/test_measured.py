"""The model card of a defense states the numbers and gaps of the evidence page, and no other."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from helpers import evidence_runs

from forefend.checks import InputError
from forefend.models.defense_readme import files_of
from forefend.report.evidence.page import evidence
from forefend.report.measured import evaluations_in, measured


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evidence_runs.make(tmp_path_factory.mktemp("measured") / "run")


def test_card_states_the_accuracies_and_gaps_of_the_page(run: Path) -> None:
    found, page = measured(evidence_runs.defense(), run), dict(evidence(run).data or {})
    (headline,) = page["headlines"]
    stated = {name.rpartition(" behind the defense, ")[2]: value for name, value in found.accuracies}
    assert stated["worst, Linf 0.2, n=40, seed 0"] == round(100 * headline["robust"]["value"], 2)
    assert stated["clean, n=40, seed 0"] == round(100 * headline["clean"]["value"], 2)
    assert found.untested == [f"{gap['what']}: {gap['why']}" for gap in page["not_tested"]]
    card = files_of({**vars(evidence_runs.defense().card)}, [found], "")["README.md"].decode()
    assert "## Not tested" in card
    assert "- AutoAttack: The attacks that ran are weaker" in card


def test_every_share_of_the_card_is_a_count_of_images(run: Path) -> None:
    found = measured(evidence_runs.defense(), run)
    card = files_of({**vars(evidence_runs.defense().card)}, [found], "")["README.md"].decode()
    shares = {f"{100 * count / 40:.1f}" for count in range(41)}
    stated = re.findall(r"(\d+\.\d) \[\d", card)
    assert len(stated) > 10
    assert set(stated) <= shares


def card_of(run: Path) -> str:
    found = measured(evidence_runs.defense(), run)
    return files_of({**vars(evidence_runs.defense().card)}, [found, found], "")["README.md"].decode()


def test_card_lists_the_checks_of_its_own_defense_alone(run: Path, tmp_path: Path) -> None:
    assert "- gradient masking: " in card_of(run)
    checked = Path(shutil.copytree(run, tmp_path / "run"))
    evidence_runs.add(checked)
    card, own = card_of(checked), evidence_runs.defense().identity()
    assert card.count("### Gradient-masking checks: cnn behind the defense") == 1
    assert "1 passed, 1 failed, 1 skipped; Linf:0.2, 40 images" in card
    assert "| random noise does not beat attacks | failed | noise breaks 9.0 % | at most 1 of 40 |" in card
    assert "- gradient masking: " not in card
    path = checked / "check/check.json"
    for other in ("other:1", ""):
        path.write_text(path.read_text().replace(f'"defense": "{own}"', f'"defense": "{other}"'))
        assert "Gradient-masking checks" not in card_of(checked)
        assert "- gradient masking: " in card_of(checked)
        path.write_text(path.read_text().replace(f'"defense": "{other}"', f'"defense": "{own}"'))


def test_card_without_an_evaluation_says_that_nothing_was_tested() -> None:
    card = files_of({**vars(evidence_runs.defense().card)}, [], "")["README.md"].decode()
    assert "- any attack: Nothing is known of robustness." in card


def test_edited_records_give_no_card(run: Path, tmp_path: Path) -> None:
    edited = Path(shutil.copytree(run, tmp_path / "run"))
    text = (edited / "records.jsonl").read_text()
    (edited / "records.jsonl").write_text(text.replace("true", "false", 1))
    with pytest.raises(InputError, match="holds records that do not count"):
        measured(evidence_runs.defense(), edited)


def test_evaluations_of_a_run_include_its_own_folder(run: Path, tmp_path: Path) -> None:
    assert evaluations_in(run) == [run]
    assert evaluations_in(tmp_path) == []
