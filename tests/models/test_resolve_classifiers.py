from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.toy_networks import same

from forefend import data
from forefend.checks import InputError
from forefend.cli import resolve_classifiers
from forefend.cli.resolve_classifiers import Finder
from forefend.data import ImageDataset
from forefend.evaluation.clean_accuracy import clean_accuracy
from forefend.models.classifiers.model_card import save_classifier
from forefend.models.fingerprint import fingerprint
from forefend.models.initialization import moments, new_classifier


def digits(split: str) -> ImageDataset:
    """A few hundred digits: enough to be well above chance, quick to train on."""
    return data.sample(data.load("digits", split), 300, 0)


def finder(runs: Path, **options: object) -> Finder:
    return Finder(digits, runs, **options)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs in which the small MLP has been trained on demand."""
    folder = tmp_path_factory.mktemp("runs")
    finder(folder).find("mlp")
    return folder


def test_an_architecture_is_trained_once_and_found_again(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(resolve_classifiers, "fit", never)
    again = finder(runs).find("mlp")
    assert (again.name, again.spec) == ("mlp", str(runs / "natural-digits-mlp-s0"))
    assert clean_accuracy(again.name, again.network, digits("test")) > 0.6
    assert not capsys.readouterr().out
    with pytest.raises(AssertionError, match="trained again"):
        finder(runs, seed=1).find("mlp")


def test_it_is_trained_where_the_options_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def on(device: str | None) -> None:
        asked.append(device)
        raise KeyboardInterrupt

    monkeypatch.setattr(resolve_classifiers, "accelerator_on", on)
    for device in (None, "cpu"):
        with pytest.raises(KeyboardInterrupt):
            finder(tmp_path, device=device).find("mlp")
    assert asked == [None, "cpu"]


def test_a_runs_folder_its_card_and_its_weights_are_the_same_classifier(runs: Path) -> None:
    folder = runs / "natural-digits-mlp-s0"
    card = json.loads((folder / "classifier.json").read_text())
    by_weights = finder(runs, mean=card["mean"], std=card["std"])
    found = [
        finder(runs).find("mlp"),
        finder(runs).find(str(folder)),
        finder(runs).find(str(folder / "classifier.json")),
        by_weights.find(f"mlp:{folder / 'weights.safetensors'}"),
    ]
    assert len({fingerprint(one.network) for one in found}) == 1
    assert [one.name for one in found] == ["mlp", folder.name, "classifier", "weights"]
    assert all(not module.training for one in found for module in one.network.modules())
    for one in found[:3]:
        assert fingerprint(finder(runs).find(one.spec).network) == one.config()["fingerprint"]
    assert found[3].config()["mean"] == card["mean"]


def test_the_same_seed_builds_the_same_classifier_and_leaves_torchs_generator_alone() -> None:
    state = torch.get_rng_state()
    first, again, another = (new_classifier("cnn", digits("train"), seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert same(list(first.state_dict().values()), list(again.state_dict().values()))
    assert fingerprint(first) != fingerprint(another)


def test_a_new_classifier_normalizes_by_the_images_own_moments() -> None:
    mean, std = moments(digits("train"))
    x, _, _ = digits("train").batch(torch.arange(300))
    assert (mean, std) == (
        [pytest.approx(x.mean().item(), abs=1e-4)],
        [pytest.approx(x.std().item(), abs=1e-4)],
    )
    network = new_classifier("cnn", digits("train"), 0)
    assert network.mean.flatten().tolist() == pytest.approx(mean)
    flat = data.from_tensors("flat", torch.zeros(4, 3, 2, 2), torch.arange(4), split="train")
    assert moments(flat) == ([0.0] * 3, [1e-3] * 3)  # constant pixels divide by no zero


def weak(folder: Path) -> Path:
    """An untrained classifier, saved."""
    save_classifier(folder, new_classifier("cnn", digits("train"), 0), "cnn", digits("train"))
    return folder


def test_a_classifier_near_chance_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    folder = weak(tmp_path / "weak")
    with pytest.raises(InputError, match=r"^weak gets \d+\.\d% of 300 clean images right, near chance \(10\.0%\)"):
        finder(tmp_path).find(str(folder))
    assert finder(tmp_path, allow_weak=True).find(str(folder)).name == "weak"


def _not_finished(folder: Path) -> str:
    (folder / "run").mkdir()
    return str(folder / "run")


MISSING: dict[str, tuple[Callable[[Path], str], str]] = {
    "a typo": (lambda f: "cnnn", "no run, JSON card or architecture called 'cnnn': did you mean 'cnn'?"),
    "a run not finished": (_not_finished, "run holds no classifier: it has no classifier.json"),
    "no card": (lambda f: str(f / "none.json"), "none.json cannot be read"),
    "no weights": (lambda f: f"cnn:{f / 'none.pth'}", "none.pth"),
    "no architecture": (lambda f: f"cn:{f / 'none.pth'}", "did you mean 'cnn'?"),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_word_that_stands_for_nothing_is_one_sentence(name: str, tmp_path: Path) -> None:
    spec, words = MISSING[name]
    with pytest.raises(InputError) as error:
        finder(tmp_path, mean=[0.0], std=[1.0]).find(spec(tmp_path))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def mnist(split: str) -> ImageDataset:
    return data.sample(data.load("mnist", "test"), 300, 0)


def test_a_wrong_normalization_of_a_published_classifier_is_noticed(tmp_path: Path, real_data: Path) -> None:
    spec = f"fastat:{real_data / 'classifiers' / 'fastat-mnist-fgsm-robust.pth'}"
    right = Finder(mnist, tmp_path, mean=[0.0], std=[1.0]).find(spec)
    assert clean_accuracy(right.name, right.network, mnist("test")) > 0.97
    with pytest.raises(InputError, match="mean is not known and is never guessed"):
        Finder(mnist, tmp_path).find(spec)
    with pytest.raises(InputError, match=r"expected numbers in \[0, 1\]"):
        Finder(mnist, tmp_path, mean=[5.0], std=[1.0]).find(spec)
    with pytest.raises(InputError, match=r"near chance .* most likely its --mean/--std or its labels are wrong"):
        Finder(mnist, tmp_path, mean=[1.0], std=[0.05]).find(spec)
