"""Transfer on classifiers whose accuracy under each source is known, and against plain evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.threshold_classifier import Shift, Threshold, levels, robust_share
from helpers.toy_networks import classifier, preprocessor, toy_images
from torch import Tensor, nn

import forefend as ff
from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.evaluation import records
from forefend.evaluation.access import Access, CraftedOn
from forefend.evaluation.evaluate import evaluate, prepare
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.transferability import transfer as module
from forefend.evaluation.transferability.matrix import ALONE, ANY, DEFENDED
from forefend.evaluation.trial import Trial
from forefend.models.classifiers.black_box import BlackBox
from forefend.models.defended import Defended
from forefend.models.defense import Defense, DefenseCard
from forefend.models.fingerprint import fingerprint
from forefend.models.preprocessors import Identity
from forefend.threat_models.lp import Linf
from forefend.threat_models.wasserstein import Wasserstein

RADIUS = 0.1


class Swapped(nn.Module):
    """A threshold with its two logits swapped: its attacker moves images the wrong way."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = Threshold()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inside(x).flip(1)
        return logits


class Negative(nn.Module):
    """Images to their negatives, so that a gradient has the wrong sign."""

    def forward(self, x: Tensor) -> Tensor:
        return 1 - x


def nothing(threat: str = f"Linf:{RADIUS}") -> Defense:
    """A defense that returns its images."""
    return Defense(Identity(channels=1), DefenseCard("identity", {"channels": 1}, threat=threat)).eval()


class Blend(nn.Module):
    """Images with a share of a convolution of theirs."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.inside = preprocessor(seed)

    def forward(self, x: Tensor) -> Tensor:
        x_out: Tensor = 0.7 * x + 0.3 * self.inside(x)
        return x_out


def taught(seed: int) -> nn.Module:
    """A classifier after a few steps of training."""
    network = classifier(seed)
    x, y, _ = toy_images(seed=9).batch(torch.arange(40))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network


TWO = {"one": taught(1), "two": taught(2)}


def small_defense(seed: int = 3) -> Defense:
    known = [{"name": "one", "fingerprint": fingerprint(TWO["one"])}]
    return Defense(Blend(seed), DefenseCard("toy", threat="Linf:0.18", guides=known)).eval()


def measured(defense: Defense | None = None, **options: Any) -> ff.TransferMatrix:
    """Transfer between two small networks behind a convolution."""
    arguments: dict[str, Any] = {"attacks": ["pgd"], "allow_weak": True} | options
    return ff.transfer(defense or small_defense(), TWO, toy_images(), **arguments)


def test_transfer_between_thresholds_is_exact() -> None:
    """A source that agrees is as strong as the white box; one that errs moves images away from the threshold."""
    negative = Defense(Negative(), DefenseCard("negative")).eval()
    found = ff.transfer(
        nothing(),
        {"threshold": Threshold(), "shifted": Threshold(0.501)},
        levels(),
        attacks=["fgsm", "pgd", "mi-fgsm", "di-fgsm"],
        surrogates={"swapped": Swapped()},
        surrogate_defenses={"negative": negative},
        allow_weak=True,
    )
    share = robust_share(RADIUS)
    assert found.attacks == ["FGSM", "PGD-20", "MI-FGSM", "DI-FGSM"]
    for attack in found.attacks:
        rows = {
            cell.row[1:]: cell.accuracy
            for cell in found.cells
            if (cell.attack, cell.classifier) == (attack, "threshold")
        }
        assert rows == {
            **{(source, behind): share for source in ("threshold", "shifted", ANY) for behind in (ALONE, DEFENDED)},
            **{("swapped", behind): 1.0 for behind in (ALONE, DEFENDED)},
            **{(source, "negative"): 1.0 for source in ("threshold", "shifted")},
            **{("swapped", "negative"): share, (ANY, "negative"): share},
        }
    assert found.cell("threshold").accuracy == 1
    assert {cell.n for cell in found.cells} == {40}
    assert [cell.source for cell in found.cells if cell.white_box] == 4 * ["threshold"] + 4 * ["shifted"]


def test_diagonal_is_the_white_box_accuracy_of_evaluate() -> None:
    defense = small_defense()
    found, trial = measured(defense), Trial("PGD-20", PGD("Linf:0.18", 20, 0.0225), Linf(0.18))
    models = [EvaluatedModel(name, Defended(defense, network), defended=True) for name, network in TWO.items()]
    for result in evaluate(models, toy_images(), [trial], allow_weak=True):
        cell = found.cell(result.classifier, *(("PGD-20", result.classifier, DEFENDED) if result.norm else ()))
        assert (cell.accuracy, cell.low, cell.high, cell.n) == (result.accuracy, result.low, result.high, result.n)
    assert found.classifiers == {"one": True, "two": False}


def test_surrogate_defense_equal_to_the_defense_gives_the_white_box_accuracy() -> None:
    found = measured(surrogate_defenses={"same": small_defense(), "another": small_defense(9)})
    for name in TWO:
        white_box = found.cell(name, "PGD-20", name, DEFENDED)
        assert white_box.accuracy == found.cell(name, "PGD-20", name, "same").accuracy < found.cell(name).accuracy
    shares = {
        behind: [found.cell(name, "PGD-20", source, behind).accuracy for name in TWO for source in TWO]
        for behind in (DEFENDED, "same", "another")
    }
    assert shares["same"] == shares[DEFENDED] != shares["another"]


def verdicts(folder: Path) -> dict[tuple[str, str, int], bool]:
    return {
        (record.model.rpartition(":")[0], record.trial, index): wrong
        for record in records.read(folder / "records.jsonl")
        for index, wrong in zip(record.index, record.misclassified, strict=True)
    }


def test_images_crafted_once_get_the_verdicts_of_images_crafted_for_each_model(tmp_path: Path) -> None:
    """The plain twin: `evaluate` attacks each source anew for each model."""
    defense, images = small_defense(), toy_images()
    measured(defense, folder=tmp_path / "fast", attacks=["pgd", "mi-fgsm"], batch_size=7)
    models = [EvaluatedModel(name, Defended(defense, network), defended=True) for name, network in TWO.items()]
    sources = {
        f"{name}{end}": f
        for name, bare in TWO.items()
        for end, f in (("", bare), (f" behind {DEFENDED}", Defended(defense, bare)))
    }
    trials = [
        Trial(f"{title} from {name}", make(Linf(0.18)), Linf(0.18), access=Access(CraftedOn(f, name)))
        for title, make in (module.ATTACKS[name] for name in ("pgd", "mi-fgsm"))
        for name, f in sources.items()
    ]
    evaluate(models, images, trials, folder=tmp_path / "plain", allow_weak=True)
    fast, plain = verdicts(tmp_path / "fast"), verdicts(tmp_path / "plain")
    assert len(plain) > 200
    assert plain.items() <= fast.items()


def spied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replace an attack; return the list of how many images each of its calls is given."""
    calls = list[int]()
    monkeypatch.setitem(module.ATTACKS, "fgsm", ("spy", lambda threat: Shift(0.05, calls)))
    return calls


def test_images_are_crafted_once_for_each_source(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spied(monkeypatch)
    measured(attacks=["fgsm"], surrogates={"three": taught(3)})
    assert calls == 2 * 3 * [40]  # alone and behind the defense, whatever the number of evaluated models


def test_transfer_resumes_and_judges_further_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spied(monkeypatch)
    first = measured(attacks=["fgsm"], folder=tmp_path)
    assert len(calls) == 4
    lines = (tmp_path / "records.jsonl").read_bytes()
    assert measured(attacks=["fgsm"], folder=tmp_path) == first
    assert len(calls) == 4
    assert (tmp_path / "records.jsonl").read_bytes() == lines
    kept = [line for line in lines.splitlines(keepends=True) if b"behind" not in line]
    (tmp_path / "records.jsonl").write_bytes(b"".join(kept))
    assert measured(attacks=["fgsm"], folder=tmp_path) == first
    assert len(calls) == 6
    assert sorted((tmp_path / "records.jsonl").read_bytes().splitlines()) == sorted(lines.splitlines())
    with pytest.raises(InputError, match=r"holds the transfer.json of another evaluation"):
        ff.transfer(
            small_defense(), {"one": TWO["one"]}, toy_images(), folder=tmp_path, attacks=["fgsm"], allow_weak=True
        )


def test_any_other_is_the_worst_source_image_by_image(tmp_path: Path) -> None:
    found = measured(surrogates={"three": taught(3)}, folder=tmp_path)
    prepared = prepare([EvaluatedModel("one", Defended(small_defense(), TWO["one"]))], toy_images(), [])
    key = prepared.targets[0].key.rpartition(":")[0]
    wrong: dict[int, bool] = {}
    for (model, trial, index), misclassified in verdicts(tmp_path).items():
        if model == key and ("crafted on two " in trial or "crafted on three " in trial or trial == "none"):
            wrong[index] = wrong.get(index, False) or (misclassified and " behind " not in trial)
    assert found.cell("one", "PGD-20", ANY).accuracy == pytest.approx(1 - sum(wrong.values()) / 40)
    assert (tmp_path / "transfer.md").read_text() == found.to_markdown()
    kept = json.loads((tmp_path / "transfer.json").read_text())
    assert kept["format"] == 1
    assert [(c["source"], c["accuracy"]) for c in kept["cells"]] == [(c.source, c.accuracy) for c in found.cells]


def test_black_box_is_attacked_and_no_source() -> None:
    inside, lines = TWO["two"], list[str]()
    network = BlackBox(lambda x: inside(torch.as_tensor(x)).detach().numpy(), classes=4, name="two")
    defense = small_defense()
    found = ff.transfer(
        defense, TWO | {"two": network}, toy_images(), attacks=["pgd"], allow_weak=True, log=lines.append
    )
    assert [line for line in lines if "gives no gradient" in line] == [
        f"no images are crafted on two{end}, which gives no gradient" for end in ("", " behind the defense")
    ]
    white = measured(defense)
    assert {cell.source for cell in found.cells} == {"", "one", ANY}
    expected = white.cell("two", "PGD-20", "one", DEFENDED).accuracy
    assert found.cell("two (black box)", "PGD-20", "one", DEFENDED).accuracy == expected
    assert "two (black box) (unseen)" in str(found)


def test_table_marks_white_box_and_seen_classifiers() -> None:
    text = str(measured())
    assert "one (guide)" in text
    assert "two (unseen)" in text
    assert text.count(" n=40 *") == 2
    assert "PGD-20  two         the defense" in text


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "nothing": (lambda: ff.transfer(small_defense(), {}, toy_images()), "There is no classifier to defend"),
    "twice": (lambda: measured(surrogates={"one": classifier(5)}), "one is a classifier and a surrogate"),
    "attack": (lambda: measured(attacks=["pgdd"]), "no attack for transfer called 'pgdd': did you mean 'pgd'"),
    "text": (lambda: measured(attacks="pgd"), "expected a list of names"),
    "type": (lambda: ff.transfer(3, TWO, toy_images()), "A int was given as the defense"),  # type: ignore[arg-type]
    "name": (lambda: measured(surrogate_defenses={DEFENDED: nothing()}), "is called 'the defense': give it another"),
    "threat": (lambda: measured(nothing("")), "trained without a threat model: give one"),
    "transport": (lambda: measured(threat=Wasserstein(0.1)), "measured in Linf or L2, not in Wasserstein"),
    "weak": (
        lambda: ff.transfer(small_defense(), {"weak": classifier(1)}, toy_images(), attacks=["pgd"]),
        "weak gets",
    ),
    "no gradient": (
        lambda: ff.transfer(
            nothing(), {"b": BlackBox(lambda x: x[:, 0, 0, :4], classes=4, name="b")}, toy_images(), allow_weak=True
        ),
        "No classifier gives a gradient",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_transfer_of_unusable_input_raises(name: str) -> None:
    work, words = WRONG[name]
    with pytest.raises(InputError) as error:
        work()
    assert words in str(error.value)
    assert "\n" not in str(error.value)
