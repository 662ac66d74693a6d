from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.command_line import done
from helpers.toy_networks import same

from forefend import data
from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.evaluation.clean_accuracy import clean_accuracy
from forefend.models.classifiers.model_card import NamedClassifier, save_classifier
from forefend.models.fingerprint import fingerprint
from forefend.models.initialization import moments, new_classifier
from forefend.training import resolve_classifiers
from forefend.training.resolve_classifiers import resolve_classifier


def digits(split: str) -> ImageDataset:
    """A few hundred digits: enough for an accuracy well above chance, and quick to train on."""
    return data.sample(data.load("digits", split), 300, 0)


def resolve(spec: str, runs: Path, **options: object) -> NamedClassifier:
    return resolve_classifier(spec, digits, runs=runs, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a small MLP that was trained on demand."""
    folder = tmp_path_factory.mktemp("runs")
    resolve("mlp", folder, train_missing=True)
    return folder


def test_resolve_architecture_trains_it_once(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(resolve_classifiers, "fit", fail)
    again = resolve("mlp", runs)
    assert (again.name, again.spec) == ("mlp", str(runs / "natural-digits-mlp-s0"))
    assert clean_accuracy(again.name, again.network, digits("test")) > 0.6
    assert not capsys.readouterr().out
    with pytest.raises(AssertionError, match="trained again"):
        resolve("mlp", runs, seed=1, train_missing=True)


def test_resolve_missing_classifier_says_what_trains_it(tmp_path: Path) -> None:
    """The command that it names makes the classifier that the same text then stands for."""
    with pytest.raises(InputError) as error:
        resolve("mlp", tmp_path)
    folder = tmp_path / "natural-digits-mlp-s0"
    (line,) = re.findall("`forefend (.*)`", str(error.value))
    assert line == f"train natural --data digits --classifier mlp --epochs 10 --out {folder}"
    assert "mlp is an architecture, and none was trained on digits yet" in str(error.value)
    assert not list(tmp_path.iterdir())
    done(f"{line} --images 60")
    assert resolve("mlp", tmp_path).spec == str(folder)
    with pytest.raises(InputError, match=r"`forefend train trades --data x.npz --size 8 .* --seed 3 --out"):
        resolve("cnn@trades", tmp_path, data="--data x.npz --size 8", seed=3)


def test_training_a_missing_classifier_tells_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resolve_classifiers, "train_classifier", lambda folder, *_, **__: shutil.copytree(made, folder))
    made = tmp_path / "made"
    save_classifier(made, new_classifier("mlp", digits("train"), 0), "mlp", digits("train"))
    resolve("mlp", tmp_path / "runs", train_missing=True)
    first, *more = capsys.readouterr().out.splitlines()
    assert re.match(r"training mlp on digits first \(natural, 10 epochs of 300 images, about \d+ s\), saved in ", first)
    assert not more


def test_resolve_architecture_trains_on_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[str | None] = []

    def record(device: str | None) -> None:
        devices.append(device)
        raise KeyboardInterrupt

    monkeypatch.setattr(resolve_classifiers, "accelerator_on", record)
    for device in (None, "cpu"):
        with pytest.raises(KeyboardInterrupt):
            resolve("mlp", tmp_path, device=device, train_missing=True)
    assert devices == [None, "cpu"]


def test_resolve_untrained_architecture_writes_nothing(tmp_path: Path) -> None:
    found = resolve("mlp@random", tmp_path)
    assert (found.name, found.architecture) == ("mlp@random", "mlp")
    assert fingerprint(found.network) == fingerprint(new_classifier("mlp", digits("train"), 0))
    assert not list(tmp_path.iterdir())


def test_resolve_recipe_with_other_networks_raises(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="guide"):
        resolve("mlp@rtfe", tmp_path)
    with pytest.raises(InputError, match="did you mean 'trades'"):
        resolve("mlp@trade", tmp_path)
    assert not list(tmp_path.iterdir())


def test_resolve_run_card_and_weights_give_same_classifier(runs: Path) -> None:
    folder = runs / "natural-digits-mlp-s0"
    card = json.loads((folder / "classifier.json").read_text())
    weights = f"mlp:{folder / 'weights.safetensors'}"
    found = [
        resolve("mlp", runs),
        resolve(str(folder), runs),
        resolve(str(folder / "classifier.json"), runs),
        resolve(weights, runs, mean=card["mean"], std=card["std"]),
    ]
    assert len({fingerprint(one.network) for one in found}) == 1
    assert [one.name for one in found] == ["mlp", folder.name, "classifier", "weights"]
    assert all(not module.training for one in found for module in one.network.modules())
    for one in found[:3]:
        assert fingerprint(resolve(one.spec, runs).network) == one.config()["fingerprint"]
    assert found[3].config()["mean"] == card["mean"]


def test_new_classifier_depends_on_seed_alone() -> None:
    state = torch.get_rng_state()
    first, again, another = (new_classifier("cnn", digits("train"), seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert same(list(first.state_dict().values()), list(again.state_dict().values()))
    assert fingerprint(first) != fingerprint(another)


def test_new_classifier_normalizes_by_image_moments() -> None:
    mean, std = moments(digits("train"))
    x, _, _ = digits("train").batch(torch.arange(300))
    assert (mean, std) == (
        [pytest.approx(x.mean().item(), abs=1e-4)],
        [pytest.approx(x.std().item(), abs=1e-4)],
    )
    network = new_classifier("cnn", digits("train"), 0)
    assert network.mean.flatten().tolist() == pytest.approx(mean)
    flat = data.from_tensors("flat", torch.zeros(4, 3, 2, 2), torch.arange(4), split="train")
    assert moments(flat) == ([0.0] * 3, [1e-3] * 3)  # constant pixels do not divide by zero


def test_clean_accuracy_near_chance_raises(tmp_path: Path) -> None:
    save_classifier(tmp_path / "weak", new_classifier("cnn", digits("train"), 0), "cnn", digits("train"))
    weak = resolve(str(tmp_path / "weak"), tmp_path)
    assert weak.name == "weak"
    with pytest.raises(InputError, match=r"^weak .*\d+\.\d% of 300 clean images.* near chance \(10\.0%\)"):
        clean_accuracy(weak.name, weak.network, digits("test"))


def _unfinished_run(folder: Path) -> str:
    (folder / "run").mkdir()
    return str(folder / "run")


def _bare_weights(folder: Path) -> str:
    (folder / "net.pt").touch()
    return str(folder / "net.pt")


WRONG: dict[str, tuple[Callable[[Path], str], str]] = {
    "typo": (lambda f: "cnnn", "no run, JSON card, source or architecture called 'cnnn': did you mean 'cnn'?"),
    "unfinished run": (_unfinished_run, "run holds no classifier: it has no classifier.json"),
    "no card": (lambda f: str(f / "none.json"), "no "),
    "no weights": (lambda f: f"cnn:{f / 'none.pth'}", "none.pth"),
    "bare weights": (_bare_weights, "give ARCHITECTURE:"),
    "no architecture": (lambda f: f"cn:{f / 'none.pth'}", "did you mean 'cnn'?"),
}


@pytest.mark.parametrize("name", WRONG)
def test_resolve_wrong_text_raises(name: str, tmp_path: Path) -> None:
    spec, words = WRONG[name]
    with pytest.raises(InputError) as error:
        resolve(spec(tmp_path), tmp_path, mean=[0.0], std=[1.0])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def mnist(split: str) -> ImageDataset:
    return data.sample(data.load("mnist", "test"), 300, 0)


def test_resolve_published_weights_requires_normalization(real_data: Path) -> None:
    spec = f"fastat:{real_data / 'classifiers' / 'fastat-mnist-fgsm-robust.pth'}"
    right = resolve_classifier(spec, mnist, mean=[0.0], std=[1.0])
    assert clean_accuracy(right.name, right.network, mnist("test")) > 0.97
    with pytest.raises(InputError, match="mean"):
        resolve_classifier(spec, mnist)
    with pytest.raises(InputError, match=r"numbers in \[0, 1\]"):
        resolve_classifier(spec, mnist, mean=[5.0], std=[1.0])
    wrong = resolve_classifier(spec, mnist, mean=[1.0], std=[0.05])
    with pytest.raises(InputError, match=r"near chance .*normalization"):
        clean_accuracy(wrong.name, wrong.network, mnist("test"))
