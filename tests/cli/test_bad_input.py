"""Invalid numbers, images and networks: each gives one sentence, exit code 2 and no file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import done, files, guide, refused
from helpers.toy_networks import CLASSES, SIZE, classifier, preprocessor, toy_cast, toy_images
from torch import Tensor, nn

import forefend as ff
from forefend.checks import RANGES, InputError
from forefend.models.fingerprint import state_digest
from forefend.recipes import RECIPES, RTFE, Natural, Transfer

QUICK = ff.suites.quick(ff.Linf(0.1))
TRAIN = "--data digits --images 40 --epochs 1 --steps 1 --out run"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sentence(error: pytest.ExceptionInfo[InputError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


NUMBERS = {
    "--epochs 0": "epochs is 0, expected at least 1",
    "--epochs -1": "epochs is -1, expected at least 1",
    "--epochs many": "--epochs does not accept 'many'",
    "--batch-size 0": "batch_size is 0, expected at least 1",
    "--images 0": "images is 0, expected at least 1",
    "--images -5": "images is -5, expected at least 1",
    "--images few": "--images does not accept 'few'",
    "--size 0": "size is 0, expected at least 1",
    "--size 5": "--size 5 was given for digits, expected none",
    "--lr 0": "lr is 0, expected a finite number above 0",
    "--lr -1": "lr is -1, expected a finite number above 0",
    "--lr nan": "--lr does not accept 'nan'",
    "--lr inf": "--lr does not accept 'inf'",
    "--steps 0": "steps is 0, expected at least 1",
    "--steps -1": "steps is -1, expected at least 0",
    "--relative-step 0": "relative_step is 0, expected a finite number above 0",
    "--relative-step -0.1": "relative_step is -0.1, expected a finite number above 0",
    "--momentum 1": "momentum is 1, expected at least 0 and below 1",
    "--weight-decay -1": "weight_decay is -1, expected at least 0",
    "--milestones 0.5 2": "milestones is 2, expected at least 0 and below 1",
    "--seed -1": "seed is -1, expected a whole number from 0 to 4294967295",
    "--seed 4294967296": "seed is 4294967296, expected a whole number",
    "--seed 1.5": "--seed does not accept '1.5'",
    "--threat Linf:-1": "radius -1 is not a finite number of at least 0",
    "--threat Linf:nan": "radius nan is not a finite number of at least 0",
    "--threat Linf:8": "l∞ radius of 8 is above 1, and pixels are in [0, 1]: did you mean 8/255?",
    "--threat Linf:8/0": "'8/0' is not a radius",
    "--threat Linf": "'Linf' is not a threat model",
    "--threat L7:1": "no norm called 'L7': choose one of L2, Linf",
}


@pytest.mark.parametrize("option", NUMBERS)
def test_train_with_invalid_number_writes_nothing(option: str, here: Path) -> None:
    assert NUMBERS[option] in refused(f"train rtfe --guides {guide()} {TRAIN} {option}")
    assert files(here) == []


@pytest.mark.parametrize("option", ["--batch-size 0", "--images 0", "--seed -1", "--threat Linf:-1", "--threat Linf:8"])
def test_evaluate_with_invalid_number_writes_nothing(option: str, here: Path) -> None:
    refused(f"evaluate {guide()} --threat Linf:0.1 --images 20 --out e {option}")
    assert files(here) == []


def test_evaluate_with_invalid_device_trains_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, words in (("gpu", "There is no device called 'gpu'"), ("cuda", "torch finds no CUDA device here")):
        assert words in refused(
            f"evaluate --classifiers mlp --train-missing --data digits --images 20 --threat Linf:0.1 --device {name}"
        )
        assert files(here) == []


def test_train_with_too_many_images_uses_all(here: Path) -> None:
    message = "digits/train has 1258 images, not 2000: uses all"
    line = "train natural --data digits --classifier mlp --epochs 1"
    assert message in done(f"{line} --images 2000 --out a")
    assert message not in done(f"{line} --out b")
    assert (here / "a/weights.safetensors").read_bytes() == (here / "b/weights.safetensors").read_bytes()


def test_evaluate_with_useless_precision_is_refused(here: Path) -> None:
    said = refused(f"evaluate {guide()} --threat Linf:0.1 --images 20 --out e --suite rtfe --precision bf16")
    assert "rtfe" in said
    assert "leave out the precision" in said
    assert files(here) == []


def test_train_accepts_meaningful_zeros(here: Path) -> None:
    done(f"train rtfe --guides {guide()} {TRAIN} --threat Linf:0")  # the control without an attacker
    done(f"train transfer --source {guide()} {TRAIN}-0 --steps 0")  # natural retraining
    cells = ff.evaluate(classifier(), toy_images(8), ff.suites.curve([ff.Linf(0)]), allow_weak=True)
    assert cells[0].accuracy == cells[1].accuracy


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_recipe_check_with_invalid_number_raises(recipe: type[ff.Recipe]) -> None:
    known = recipe().settings()
    tried = [name for name in RANGES if name in known and not isinstance(known[name], list)]
    assert {"epochs", "batch_size", "lr"} <= set(tried)
    recipe().check()
    for name in tried:
        for value in (-1, float("nan")):
            with pytest.raises(InputError, match=f"^The number given for {name} is {value}, expected"):
                recipe(**{name: value}).check()
    assert Transfer(steps=0).check() is None
    with pytest.raises(InputError, match="There are 1 factors for 3 milestones"):
        ff.recipes.MMA(factors=(0.1,)).configure_optimizers(toy_cast())


def test_fit_with_invalid_number_raises() -> None:
    for recipe in (RTFE(lr=float("nan")), RTFE(epochs=0), RTFE(steps=0), Natural(batch_size=0)):
        with pytest.raises(InputError, match="expected"):
            ff.fit(recipe, toy_images(), toy_cast())


def pixels(**changes: Any) -> Tensor:
    x = torch.rand(4, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    for flat, value in changes.items():
        x.view(-1)[int(flat[1:])] = value
    return x


IMAGES: dict[str, tuple[Callable[[], Any], str]] = {
    "outside": (lambda: pixels(_3=1.5), "expected [0, 1]"),
    "normalized": (lambda: (pixels() - 0.5) / 0.25, "they look normalized: undo it"),
    "8-bit floats": (lambda: pixels() * 255, "divide by 255"),
    "NaN": (lambda: pixels(_3=float("nan")), "hold NaN or infinite pixels"),
    "int32": (lambda: (pixels() * 255).int(), "int32"),
    "rank": (lambda: pixels()[0], "expected (B, C, H, W): one image is x[None]"),
    "none": (lambda: pixels()[:0], "holds no images"),
    "a list": (lambda: pixels().tolist(), "list"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_from_tensors_with_invalid_images_raises(name: str) -> None:
    make, words = IMAGES[name]
    x = make()
    with pytest.raises(InputError) as error:
        ff.data.from_tensors("mine", x, torch.zeros(len(x), dtype=torch.int64))
    assert words in sentence(error)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (torch.tensor([0, 1, 2, -1]), "Labels range over -1 … 2"),
        (torch.tensor([0, 1, 2, 4]), "Labels range over 0 … 4, expected 0 … 3 for 4 classes"),
        (torch.tensor([0.0, 1, 2, 3]), "expected int64 class numbers"),
        (torch.tensor([0, 1, 2]), "There are 3 labels for 4 images"),
    ],
)
def test_from_tensors_with_invalid_labels_raises(y: Tensor, words: str) -> None:
    with pytest.raises(InputError) as error:
        ff.data.from_tensors("mine", pixels(), y, classes="abcd")
    assert words in sentence(error)


class Broken(nn.Module):
    """A classifier whose logits are changed by a function."""

    def __init__(self, spoil: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.network, self.spoil = classifier(), spoil

    def forward(self, x: Tensor) -> Any:
        return self.spoil(self.network(x))


class Colored(nn.Module):
    """A classifier, or a preprocessor, of color images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CLASSES, SIZE)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).flatten(1)


CLASSIFIERS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "probabilities": (lambda: Broken(lambda z: z.softmax(1)), "returns probabilities (rows sum to 1), expected logits"),
    "tuple": (lambda: Broken(lambda z: (z, z)), "returns a tuple, expected one tensor of logits (B, 4)"),
    "classes": (lambda: Broken(lambda z: z[:, :3]), "returns shape (2, 3), expected (2, 4)"),
    "features": (lambda: Broken(lambda z: z[:, :, None]), "returns shape (2, 4, 1), expected (2, 4)"),
    "NaN": (lambda: Broken(lambda z: z * float("nan")), "returns NaN or infinite logits"),
    "error": (lambda: Broken(lambda z: z["head"]), "fails on images of shape"),
    "channels": (Colored, f"Images of shape (1, {SIZE}, {SIZE}) do not fit"),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_evaluate_and_fit_with_invalid_classifier_raise(name: str, here: Path) -> None:
    make, words = CLASSIFIERS[name]
    for attempt in (
        lambda network: ff.evaluate(network, toy_images(8), QUICK, allow_weak=True),
        lambda network: ff.fit(RTFE(epochs=1), toy_images(8), ff.Networks(preprocessor(), [ff.Guide(network)])),
        lambda network: ff.fit(Natural(epochs=1), toy_images(8), ff.Networks(classifier=network)),
    ):
        with pytest.raises(InputError) as error:
            attempt(make())
        assert words in sentence(error)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Colored(), f"Images of shape (1, {SIZE}, {SIZE}) do not fit the preprocessor"),
        (nn.Conv2d(1, 3, 1), "(2, 3, 6, 6) for images (2, 1, 6, 6)"),
        (nn.MaxPool2d(2), "(2, 1, 3, 3) for images (2, 1, 6, 6)"),
    ],
)
def test_fit_with_invalid_preprocessor_raises(network: nn.Module, words: str) -> None:
    with pytest.raises(InputError) as error:
        ff.fit(JustTrain(), toy_images(8), ff.Networks(network, [ff.Guide(classifier())]))
    assert words in sentence(error)


class JustTrain(RTFE):
    """RTFE for preprocessors without parameters."""

    def configure_optimizers(self, networks: ff.Networks) -> dict[str, ff.Trainable]:
        return {}


def test_evaluate_near_chance_raises() -> None:
    images = toy_images(40)
    with pytest.raises(InputError, match=r"classifier gets .* of 40 clean images right, near chance \(25.0%\)"):
        ff.evaluate(classifier(), images, [])
    assert ff.evaluate(classifier(), images, [], allow_weak=True)


def test_evaluate_command_near_chance_is_refused(here: Path) -> None:
    done(f"train natural {TRAIN} --classifier cnn".replace("--steps 1", "--lr 1e-6"))
    said = refused("evaluate run --images 20 --threat Linf:0.1 --out e")
    assert said.startswith("run gets ")
    assert "normalization" in said
    assert not (here / "e").exists()
    done("evaluate run --images 20 --threat Linf:0.1 --out e --allow-weak-classifier")
    assert "near chance" in refused(f"train rtfe {TRAIN}2 --guides run")
    assert not (here / "run2").exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda name: ff.suites.quick(name),
        lambda name: ff.suites.curve([name]),
        lambda name: ff.suites.curve(name),
        *(lambda name, suite=suite: suite(ff.suites.Terms([name], CLASSES)) for suite in ff.suites.SUITES.values()),
        lambda name: RTFE(threat=name).check(),
        lambda name: ff.fit(RTFE(threat=name), toy_images(), toy_cast()),
    ],
)
@pytest.mark.parametrize("name", ["Linf8", 0.1])
def test_invalid_threat_model_raises(make: Callable[[Any], Any], name: Any) -> None:
    with pytest.raises(InputError, match=r"is (no|not a) threat model: .*Linf:8/255") as error:
        make(name)
    assert repr(name) in sentence(error)


def test_suite_of_one_threat_model_is_same_as_list() -> None:
    threat = ff.Linf(0.1)
    assert ff.suites.curve(threat) == ff.suites.curve([threat])
    assert ff.suites.rtfe_strong_weak(threat) == ff.suites.rtfe_strong_weak([threat])


@pytest.mark.parametrize("models", [lambda x: x, [classifier()], [("name", classifier())], "cnn", None])
def test_evaluate_with_invalid_models_raises(models: Any) -> None:
    with pytest.raises(InputError, match=r"\b(module|Module)\b"):
        ff.evaluate(models, toy_images(), QUICK)


@pytest.mark.parametrize(
    ("guides", "kind"),
    [(classifier(), "Sequential"), (ff.Guide(classifier()), "Guide"), ([lambda x: x], "function"), (["cnn"], "str")],
)
def test_networks_with_invalid_guides_raises(guides: Any, kind: str) -> None:
    with pytest.raises(InputError, match=rf"holds a {kind}, expected a list"):
        ff.Networks(preprocessor(), guides=guides)
    assert len(ff.Networks(guides=nn.ModuleList([classifier(1), classifier(2)])).guides) == 2


def test_networks_wraps_bare_guides() -> None:
    network = classifier()
    before = state_digest(network)
    networks = ff.Networks(preprocessor(), guides=[network, ff.Guide(classifier(2), "two")])
    assert [guide.name for guide in networks.guides] == ["guide", "two"]
    ff.fit(RTFE(ff.Linf(0.1), steps=1, epochs=1, batch_size=20), toy_images(), networks)
    assert state_digest(network) == before


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("NoneType .* inner_attack", {"config": ff.TrainingConfig(inner_attack=None)}),  # type: ignore[arg-type]
    ("precision called 'fp31'", {"config": ff.TrainingConfig(attack_copy="fp31")}),
    ("str .* monitor", {"config": ff.TrainingConfig(monitor="stop")}),  # type: ignore[arg-type]
    ("str .* recipe", {"recipe": "rtfe"}),
    ("RTFE .* recipe", {"recipe": RTFE}),
    ("str .* images", {"data": "digits"}),
    ("Sequential .* (cast|networks)", {"networks": preprocessor()}),
    ("dict .* (ways|config)", {"config": {"ema": 0.9}}),
    ("seed is 'a'", {"seed": "a"}),
    ("seed is -1", {"seed": -1}),
    ("ema is 0.9", {"config": ff.TrainingConfig(ema="0.9")}),  # type: ignore[arg-type]
    ("precision called 'torch.bfloat16'", {"config": ff.TrainingConfig(precision=torch.bfloat16)}),  # type: ignore[arg-type]
    ("epochs is 1.5", {"recipe": RTFE(epochs=1.5)}),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("words", "wrong"), WRONG)
def test_fit_with_wrong_argument_raises(words: str, wrong: dict[str, Any]) -> None:
    given: dict[str, Any] = {"recipe": RTFE(ff.Linf(0.1), steps=1, epochs=1), "data": toy_images()}
    given |= {"networks": toy_cast()} | wrong
    with pytest.raises(InputError, match=words) as error:
        ff.fit(**given)
    sentence(error)


@pytest.mark.parametrize("wrong", [{"data": "digits"}, {"seed": "x"}, {"batch_size": 0}, {"batch_size": 2.5}])
def test_evaluate_with_wrong_argument_raises(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"expected"):
        ff.evaluate(**({"models": classifier(), "data": toy_images(), "suite": QUICK} | wrong))


def test_refused_training_trains_no_guide(here: Path) -> None:
    line = "train rtfe --data digits --guides mlp --train-missing --epochs 1 --steps 1"
    for option, words in (
        ("--ema 2", "The decay ema is 2"),
        ("--inner-attack atta --threat L2:0.5", "ATTA is L2:0.5, expected l∞"),
        ("--lr -1", "lr is -1"),
    ):
        assert words in refused(f"{line} {option}")
    (here / "taken").mkdir()
    (here / "taken" / "mine.txt").write_text("mine")
    assert "taken holds files but no run" in refused(f"{line} --out taken")
    done("train natural --data digits --images 40 --classifier mlp --epochs 1 --out other")
    assert "other belongs to another configuration" in refused(f"{line} --out other")
    assert not (here / "runs").exists()


def test_evaluate_card_without_size_takes_images_size(here: Path) -> None:
    network = ff.classifiers.build("cnn", channels=1, classes=10, size=8)
    torch.save(network.state_dict(), here / "cnn.pt")
    (here / "mine.json").write_text('{"architecture": "cnn", "weights": "cnn.pt", "mean": 0, "std": 1}')
    line = "evaluate --data digits --images 8 --allow-weak-classifier --threat Linf:0.1 --suite curve --classifiers"
    assert "mine" in done(f"{line} mine.json")
    assert "ARCHITECTURE:cnn.pt" in refused(f"{line} cnn.pt")


@pytest.mark.parametrize("line", ["train natural --classifier mlp", "evaluate --classifiers mlp", "certify", "check"])
def test_command_without_data_lists_sets_and_forms(line: str, here: Path) -> None:
    said = refused(line)
    assert said.startswith("No images were named: give --data with one of digits, cifar-10, ")
    assert "an .npz file, a .csv of paths and labels, a folder of class folders" in said
    assert list(here.iterdir()) == []
