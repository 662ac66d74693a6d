"""`forefend transfer`: a run, an unseen classifier and a public defense, resumed, moved and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import done, files, guide, refused

from forefend.cli import transfer as command
from forefend.evaluation.results import load

TRAIN = "train rtfe --data digits --epochs 1 --images 100 --steps 1"
OPTIONS = "--images 20 --allow-weak-classifier --batch-size 20"


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, the run of a public defense, and a classifier that none has seen."""
    folder = tmp_path_factory.mktemp("once")
    done(f"{TRAIN} --guides {guide()} --out {folder}/run")
    done(f"{TRAIN} --guides {guide()} --seed 1 --out {folder}/public")
    done(f"train natural --data digits --classifier mlp --epochs 3 --images 600 --out {folder}/mlp")
    return folder


@pytest.fixture(autouse=True)
def here(once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("run", "public", "mlp"):
        shutil.copytree(once / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cells(folder: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    kept = json.loads((folder / "transfer.json").read_text())["cells"]
    return {(c["attack"], c["source"], c["behind"], c["classifier"]): c for c in kept}


def test_transfer_writes_table_and_heat_map_and_resumes(here: Path) -> None:
    line = f"transfer run --classifiers mlp --surrogate-defense public {OPTIONS}"
    out = done(line)
    name = guide().name
    assert f"{name} (guide)" in out
    assert "mlp (unseen)" in out
    (folder,) = (here / "run" / "transfer").iterdir()
    assert folder.name == f"digits-{name}-mlp-pgd-mi-fgsm-public-Linf8_255-20-s0"
    kept = {"evaluation.json", "models.json", "records.jsonl", "transfer.json", "transfer.md"}
    drawn = {"transfer.png", "transfer.svg"}
    assert kept <= set(files(folder)) <= kept | drawn
    found = cells(folder)
    rows = [
        (attack, s, b) for attack in ("PGD-20", "MI-FGSM") for b in ("", "the defense", "public") for s in (name, "mlp")
    ]
    assert found.keys() >= {(*row, classifier) for row in rows for classifier in (name, "mlp")}
    assert {c["n"] for c in found.values()} == {20}
    assert {c["classifier"]: c["seen"] for c in found.values()} == {name: True, "mlp": False}
    assert [(key[1], key[3]) for key, c in found.items() if c["white_box"]] == 2 * [(name, name)] + 2 * [("mlp", "mlp")]
    before = {file: (folder / file).read_bytes() for file in files(folder) if file != "evaluation.json"}
    (here / "run").rename(here / "moved")
    moved = here / "moved" / "transfer" / folder.name
    assert done(line.replace("transfer run", "transfer moved")).splitlines()[-3] == out.splitlines()[-3]
    assert (moved / "records.jsonl").read_bytes() == before["records.jsonl"]
    assert cells(moved) == found


def test_diagonal_equals_evaluate(here: Path) -> None:
    """The suite transfer runs FGSM in the white box, and on a surrogate that is the classifier itself."""
    options = f"{OPTIONS} --threat Linf:0.1"
    done(f"transfer run --attacks fgsm {options} --out t")
    done(f"evaluate run --suite transfer --surrogates {guide()} {options} --processes 1 --out e")
    found, name = cells(here / "t"), guide().name
    shares = {r.attack: r.accuracy for r in load(here / "e") if r.defended}
    assert found["FGSM", name, "the defense", name]["accuracy"] == shares["FGSM white-box"]
    assert found["FGSM", name, "", name]["accuracy"] == shares[f"FGSM {name}"]
    assert found["", "", "", name]["accuracy"] == shares["none"]


def test_classifiers_of_other_data_transfer_alone(here: Path) -> None:
    shutil.copytree(here / "mlp", here / "other")
    out = done(f"transfer run --data digits --classifiers mlp --attacks fgsm {OPTIONS} --out a")
    assert guide().name in out
    config = here / "run" / "config.json"
    config.write_text(config.read_text().replace('"data": "digits"', '"data": "mnist"'))
    out = done(f"transfer run --data digits --classifiers mlp --attacks fgsm {OPTIONS} --out b")
    assert guide().name not in out
    assert "FGSM    mlp         the defense" in out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("transfer", "run"),
        ("transfer nowhere", "holds no defense.json"),
        ("transfer mlp", "holds no defense.json"),
        ("transfer run --attacks pgdd", "no attack for transfer called 'pgdd': did you mean 'pgd'"),
        ("transfer run --surrogate-defense mlp", "holds no defense.json"),
        ("transfer run --surrogates cnn", "cnn is an architecture, and none was trained on digits yet"),
        ("transfer run --threat Wasserstein:0.1", "measured in Linf or L2"),
        ("transfer run --suite quick", "There is no option --suite"),
    ],
)
def test_refused_transfer_writes_nothing(here: Path, line: str, words: str) -> None:
    before = files(here)
    assert words in refused(f"{line} --images 20 --allow-weak-classifier")
    assert files(here) == before


def test_public_defenses_of_one_name_keep_their_paths() -> None:
    assert command._names(["a/run", "b/run", "c/x"]) == {"a/run": "a/run", "b/run": "b/run", "x": "c/x"}
