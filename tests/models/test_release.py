"""A defense folder is written with its card and digests, copied, fetched and uploaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.toy_networks import classifier, toy_images

from forefend.checks import InputError
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel, with_and_without
from forefend.models import preprocessors
from forefend.models.defended import Defended
from forefend.models.defense import Defense, DefenseCard, load
from forefend.models.fingerprint import fingerprint
from forefend.report.measured import measured

X = toy_images(8).batch(torch.arange(8))[0]
IMAGES = toy_images(24, seed=1, split="test")
PRINT = fingerprint(classifier(1))


def defense(seed: int = 0) -> Defense:
    torch.manual_seed(seed)
    network = preprocessors.build("narrow-unet", channels=1, widths=[4, 8], depths=[1, 1])
    guides = [{"name": "one", "fingerprint": PRINT}]
    card = DefenseCard("narrow-unet", dict(network.settings), "Linf:0.1", "rtfe", "toy", guides)  # type: ignore[arg-type]
    return Defense(network, card).eval()


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    models = [*with_and_without(defense(), "one", classifier(1)), *with_and_without(defense(), "two", classifier(2))]
    evaluate(models, IMAGES, "quick", "Linf:0.1", folder=folder, allow_weak=True)
    return folder


def head(folder: Path) -> Any:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_a_folder_that_was_saved_copied_and_loaded_answers_alike(tmp_path: Path) -> None:
    saved = defense()
    saved.save_pretrained(tmp_path / "one", license="apache-2.0")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "one")
    for loaded in (Defense.from_pretrained(tmp_path / "two"), load(tmp_path / "two")):
        assert torch.equal(loaded(X), saved(X))
        assert loaded.card == saved.card
        assert loaded.identity() == saved.identity()
    names = {path.name for path in (tmp_path / "two").iterdir()}
    assert names == {"README.md", "defense.json", "release.json", "weights.safetensors"}
    held = json.loads((tmp_path / "two" / "release.json").read_text())
    assert held["format"] == 1
    assert held["license"] == head(tmp_path / "two")["license"] == "apache-2.0"
    assert held["files"].keys() == names - {"release.json"}
    assert held["versions"]["forefend"]


def test_a_card_without_an_evaluation_states_no_accuracy(tmp_path: Path) -> None:
    defense().save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "states no accuracy" in text
    assert f"one (`{PRINT}`)" in text
    assert "Linf:0.1" in text
    assert "model-index" not in text
    assert "license" not in head(tmp_path)


def test_the_card_states_what_the_records_count(evaluated: Path, tmp_path: Path) -> None:
    found = measured(defense(), evaluated)
    defense().save_pretrained(tmp_path, measured=[found])
    summary = json.loads((evaluated / "summary.json").read_text())["results"]
    expected = sorted(round(100 * row["accuracy"], 2) for row in summary if row["defended"])
    (result,) = head(tmp_path)["model-index"][0]["results"]
    assert sorted(metric["value"] for metric in result["metrics"]) == expected
    assert result["dataset"] == {"name": "toy/test", "type": "toy", "split": "test"}
    text = (tmp_path / "README.md").read_text()
    assert all(words in text for words in ("one (guide)", "two (unseen)", "n=24", "seed 0", "PGD-20", "Linf 0.1"))
    models = json.loads((tmp_path / "robustbench.json").read_text())["models"]
    assert [model["architecture"] for model in models] == ["one", "two"]
    clean = next(row for row in summary if row["defended"] and row["attack"] == "none")
    assert models[0]["clean_acc"] == f"{100 * clean['accuracy']:.2f}"
    assert (models[0]["norm"], models[0]["eps"]) == ("Linf", "0.1")
    assert load(tmp_path).identity() == defense().identity()


def test_a_number_of_another_defense_is_refused(evaluated: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="measured another defense"):
        measured(defense(1), evaluated)
    with pytest.raises(InputError, match="measured another defense"):
        defense(1).save_pretrained(tmp_path / "new", measured=[measured(defense(), evaluated)])
    assert not (tmp_path / "new").exists()


def test_an_edited_summary_changes_no_number_and_a_lost_record_is_refused(evaluated: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(evaluated, tmp_path / "evaluation")
    before = measured(defense(), copied).accuracies
    (copied / "summary.json").write_text('{"results": []}')
    assert measured(defense(), copied).accuracies == before
    lines = (copied / "records.jsonl").read_text().splitlines(keepends=True)
    (copied / "records.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match=r"has no record of \d+ of 24 images of two under PGD-20 margin"):
        measured(defense(), copied)


def test_an_evaluation_of_a_bare_preprocessor_is_refused(tmp_path: Path) -> None:
    model = EvaluatedModel("one", Defended(defense().preprocessor, classifier(1)), defended=True)
    evaluate(model, IMAGES, [], folder=tmp_path, allow_weak=True)
    with pytest.raises(InputError, match="measured another defense"):
        measured(defense(), tmp_path)


def test_an_evaluation_of_an_older_version_is_refused(evaluated: Path, tmp_path: Path) -> None:
    held = json.loads((evaluated / "evaluation.json").read_text())
    del held["about"]["counted"]
    (tmp_path / "evaluation.json").write_text(json.dumps(held))
    with pytest.raises(InputError, match="does not say which defense was measured: evaluate again"):
        measured(defense(), tmp_path)


@pytest.mark.parametrize("name", ["README.md", "defense.json", "weights.safetensors"])
def test_a_changed_or_missing_file_is_refused(name: str, tmp_path: Path) -> None:
    defense().save_pretrained(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-2] + b"0\n")
    with pytest.raises(InputError, match=f"{name} is not the file that was released"):
        load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"lacks {name}, which its release.json lists"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "has format 2, this forefend reads formats up to 1"),
        ({"files": {}}, "does not list the files of a defense"),
        ({"files": {"../README.md": "0", "defense.json": "0", "weights.safetensors": "0"}}, "does not list the files"),
    ],
)
def test_a_release_of_another_form_is_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    defense().save_pretrained(tmp_path)
    held = json.loads((tmp_path / "release.json").read_text())
    (tmp_path / "release.json").write_text(json.dumps(held | change))
    with pytest.raises(InputError, match=words):
        load(tmp_path)


def test_a_folder_of_other_files_is_refused_and_an_own_one_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="holds other files"):
        defense().save_pretrained(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]
    defense().save_pretrained(tmp_path / "own")
    defense(1).save_pretrained(tmp_path / "own")
    assert load(tmp_path / "own").identity() == defense(1).identity()


def test_what_is_pushed_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub is a folder here; no network is used."""
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "create_repo", lambda name, **options: (tmp_path / name).mkdir(parents=True))

    def upload(repo_id: str, folder_path: Path, **options: Any) -> str:
        return str(shutil.copytree(folder_path, tmp_path / repo_id, dirs_exist_ok=True))

    def snapshot(name: str, local_files_only: bool = False, **options: Any) -> str:
        if local_files_only:
            raise hub.errors.LocalEntryNotFoundError("not there")
        return str(tmp_path / name)

    monkeypatch.setattr(hub, "upload_folder", upload)
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    assert defense().push_to_hub("me/mine") == str(tmp_path / "me/mine")
    assert torch.equal(Defense.from_pretrained("me/mine", revision="main")(X), defense()(X))
    assert torch.equal(load("hf:me/mine", download=True)(X), defense()(X))
    with pytest.raises(InputError, match="or download=True to fetch it from the hub"):
        load("hf:me/mine")


def test_without_network_fetching_and_pushing_fail_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def unreachable(*arguments: Any, **options: Any) -> Any:
        raise OSError("no route to host") if not options.get("local_files_only") else ValueError("not there")

    for name in ("snapshot_download", "create_repo", "upload_folder"):
        monkeypatch.setattr(hub, name, unreachable)
    with pytest.raises(InputError, match=r"me/mine on huggingface\.co could not be downloaded \(no route to host\)"):
        Defense.from_pretrained("me/mine")
    with pytest.raises(InputError, match=r"me/mine could not be uploaded \(no route to host\)"):
        defense().push_to_hub("me/mine")
    with pytest.raises(InputError, match="neither a folder nor a repository OWNER/NAME"):
        Defense.from_pretrained("nowhere")
    with pytest.raises(InputError, match="expected OWNER/NAME"):
        defense().push_to_hub("nowhere")
