from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from helpers.toy_networks import classifier, held, preprocessor, same, toy_images, untouched
from safetensors.torch import load as load_weights
from safetensors.torch import save
from torch import nn

from forefend.checks import InputError
from forefend.evaluation.evaluate import evaluate
from forefend.models import preprocessors
from forefend.models.classifiers import Normalized
from forefend.models.defended import Defended, pipelines
from forefend.models.defense import Defense, DefenseCard, load
from forefend.models.fingerprint import fingerprint
from forefend.models.guide import Guide
from forefend.recipes import RTFE
from forefend.recipes.base import Networks
from forefend.threat_models.lp import Linf
from forefend.training.artifacts import defense_of
from forefend.training.trainer import fit

# Small forms of the architectures, whose defaults have up to seventy million parameters.
SMALL = {
    "aaa-autoencoder": {"channels": 1, "width": 4},
    "ape-gan": {"channels": 3},
    "denoising-autoencoder": {"channels": 3, "widths": [4, 8], "depths": [1, 1]},
    "dncnn": {"channels": 1, "depth": 3, "width": 4},
    "identity": {"channels": 1},
    "narrow-unet": {"channels": 1, "widths": [4, 8], "depths": [1, 1]},
    "nrp-3": {"channels": 3, "width": 4, "growth": 2},
    "residual-unet": {"channels": 3, "widths": [4, 8], "depths": [1, 2]},
    "robustifier-4": {"channels": 1, "scale": 1},
    "rtfe-unet": {"channels": 1, "widths": [4], "depths": [1]},
}


def defense(name: str = "narrow-unet") -> Defense:
    """A defense whose statistics have moved, as after training."""
    network = preprocessors.build(name, **SMALL[name])
    network.train()(torch.rand(4, SMALL[name]["channels"], 16, 16))
    guides = [{"name": "one", "fingerprint": fingerprint(classifier(1))}]
    return Defense(network, DefenseCard(name, dict(network.settings), "Linf:8/255", "rtfe", "toy", guides))


@pytest.mark.parametrize("name", SMALL)
def test_what_is_saved_is_loaded_bit_for_bit_and_in_eval_mode(name: str, tmp_path: Path) -> None:
    saved = defense(name)
    saved.save(tmp_path)
    loaded = load(tmp_path)
    assert json.loads((tmp_path / "defense.json").read_text())["settings"] == saved.preprocessor.settings
    x = torch.rand(3, SMALL[name]["channels"], 16, 16)
    assert loaded.card == saved.card
    assert same(list(saved.state_dict().values()), list(loaded.state_dict().values()))
    assert torch.equal(loaded(x), saved.eval()(x))
    assert not any(module.training for module in loaded.modules())


@pytest.mark.parametrize("name", SMALL)
def test_a_network_s_own_name_and_settings_build_its_equal(name: str) -> None:
    network = preprocessors.build(name, **SMALL[name])
    rebuilt = preprocessors.build(preprocessors.name_of(network), **network.settings)
    assert type(rebuilt) is type(network)
    assert rebuilt.settings == network.settings


@pytest.mark.parametrize("name", preprocessors.ARCHITECTURES)
def test_name_of_returns_the_name_of_each_architecture(name: str) -> None:
    with torch.device("meta"):
        network = preprocessors.build(name, channels=3)
    assert preprocessors.name_of(network) == name


def test_save_with_a_wrong_card_raises(tmp_path: Path) -> None:
    network = preprocessors.build("narrow-unet", channels=1)
    settings = network.settings
    for card in (
        DefenseCard("narrow-unet"),
        DefenseCard("dncnn", settings),
        DefenseCard("narrow-unet", settings | {"widths": [4, 8, 8]}),
    ):
        with pytest.raises(InputError, match=r"is not the network to save|does not take the settings"):
            Defense(network, card).save(tmp_path)
    with pytest.raises(InputError, match="no preprocessor architecture called 'unet'"):
        Defense(network, DefenseCard("unet", settings)).save(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"^A Sequential is no architecture"):
        preprocessors.name_of(preprocessor())


def test_trained_defense_is_loaded_with_its_guides(tmp_path: Path) -> None:
    network = preprocessors.build("narrow-unet", **SMALL["narrow-unet"])
    networks = Networks(network, [Guide(classifier(1), "mine")])
    recipe = RTFE(Linf(0.1), steps=1, epochs=1, batch_size=20)
    images = toy_images()
    defense = fit(recipe, images, networks, run=tmp_path, accelerator=Accelerator(cpu=True))
    assert isinstance(defense, Defense)
    defense.save(tmp_path)
    card = load(tmp_path).card
    assert (card.recipe, card.threat, card.data, card.architecture) == ("rtfe", "Linf:0.1", images.name, "narrow-unet")
    assert [guide["name"] for guide in card.guides] == ["mine"]
    assert load(tmp_path).has_seen(classifier(1))
    assert not load(tmp_path).has_seen(classifier(2))
    seen = {cell.seen for cell in evaluate(Defended(load(tmp_path), classifier(1)), images, [])}
    assert seen == {True}


def test_has_seen_ignores_an_identity_normalization(tmp_path: Path) -> None:
    bare = classifier(1)
    assert defense().has_seen(Normalized(bare, 0, 1))
    assert defense().has_seen(Guide(Normalized(bare, [0.0], [1.0])))
    assert not defense().has_seen(Normalized(bare, 0.5, 1))
    assert not defense().has_seen(Normalized(bare, 0, 0.5))
    assert not defense().has_seen(Normalized(classifier(2), 0, 1))


def test_an_average_is_on_the_card() -> None:
    network = preprocessors.build("narrow-unet", **SMALL["narrow-unet"])
    recipe, networks = RTFE(Linf(0.1)), Networks(network, [classifier(1)])
    assert defense_of(recipe, toy_images(), networks, ema=0.9, kept={}).card.ema == 0.9
    assert defense_of(recipe, toy_images(), networks, ema=None, kept={}).card.ema is None


def test_the_pair_is_in_the_mode_of_its_defense() -> None:
    assert not Defended(preprocessor().eval(), classifier()).training
    assert Defended(preprocessor().train(), classifier()).training


def test_saving_again_replaces_what_was_there(tmp_path: Path) -> None:
    defense().save(tmp_path)
    second = defense()
    second.save(str(tmp_path))
    assert fingerprint(load(tmp_path)) == fingerprint(second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["defense.json", "weights.safetensors"]


def test_a_seen_classifier_is_told_by_its_fingerprint() -> None:
    assert defense().has_seen(classifier(1))
    assert defense().has_seen(classifier(1).train())
    assert defense().has_seen(Guide(classifier(1)))
    assert not defense().has_seen(classifier(2))
    moved = classifier(1)
    moved[1].running_mean[0] += 1e-6
    assert not defense().has_seen(moved)


def test_defended_applies_both_networks_without_clamping() -> None:
    wide, network = nn.Conv2d(1, 1, 1), classifier()
    x = torch.rand(3, 1, 6, 6) * 9 - 4
    assert torch.equal(Defended(wide, network)(x), network(wide(x)))


def test_defended_changes_leave_the_classifier_unchanged() -> None:
    network = classifier().train()
    network[1].eval()
    network[0].weight.requires_grad_(False)
    before = held(network)
    guarded = Defended(preprocessor(), network)
    for change in (
        lambda: guarded.train(),
        lambda: guarded.eval(),
        lambda: guarded.requires_grad_(True),
        lambda: guarded.requires_grad_(False),
        lambda: guarded.to(memory_format=torch.channels_last),
        lambda: guarded.to(torch.float64),
        lambda: guarded.half(),
    ):
        change()
        assert untouched(network, before)


def test_in_training_mode_only_the_defense_trains() -> None:
    guarded = Defended(preprocessor(), classifier()).train()
    assert guarded.defense.training
    assert not any(module.training for module in guarded.classifier.modules())
    asking = {name for name, p in guarded.named_parameters() if p.requires_grad}
    assert asking == {f"defense.{name}" for name, _ in preprocessor().named_parameters()}
    x = torch.rand(4, 1, 6, 6, requires_grad=True)
    guarded(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_an_optimizer_over_all_of_it_moves_the_defense_alone() -> None:
    network = classifier()
    before, guarded = held(network), Defended(preprocessor(), network)
    guarded.train().requires_grad_(True)
    guarded(torch.rand(4, 1, 6, 6)).square().sum().backward()
    torch.optim.SGD(guarded.parameters(), lr=1.0, weight_decay=0.1).step()
    assert untouched(network, before)


def test_pipelines_preprocess_once_for_all_guides() -> None:
    calls: list[int] = []

    class Counting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            return x / 2

    guides, x = [Guide(classifier(1)), Guide(classifier(2))], torch.rand(2, 1, 6, 6)
    out = pipelines(Counting(), guides)(x)
    assert len(calls) == 1
    assert same(out, [guide(x / 2) for guide in guides])


def _card(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        card = json.loads((folder / "defense.json").read_text())
        card.pop("digests")  # as older versions wrote it
        change(card)
        (folder / "defense.json").write_text(json.dumps(card))

    return damage


Damage = Callable[[Path], None]


def _edit(old: str, new: str) -> Damage:
    def damage(folder: Path) -> None:
        text = (folder / "defense.json").read_text()
        assert old in text
        (folder / "defense.json").write_text(text.replace(old, new, 1))

    return damage


def _weights(change: Callable[[bytes], bytes], card: Damage = lambda folder: None) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "weights.safetensors"
        path.write_bytes(change(path.read_bytes()))
        card(folder)

    return damage


def _integers(weights: bytes) -> bytes:
    return save({name: tensor.round().long() for name, tensor in load_weights(weights).items()})


def _halved(weights: bytes) -> bytes:
    return save({name: tensor * 0.5 for name, tensor in load_weights(weights).items()})


OLD = _card(lambda card: None)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no card": (lambda f: (f / "defense.json").unlink(), "defense.json"),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), "no weights.safetensors"),
    "not JSON": (lambda f: (f / "defense.json").write_text("{"), r"defense.json is not JSON"),
    "a list": (lambda f: (f / "defense.json").write_text("[]"), r"defense.json is no card of a defense"),
    "unknown key": (_card(lambda c: c.update(author="me")), r"defense.json is no card of a defense \(.*author"),
    "no architecture": (_card(lambda c: c.pop("architecture")), r"is no card of a defense \(.*architecture"),
    "other name": (_card(lambda c: c.update(architecture="unett")), "no preprocessor architecture called 'unett'"),
    "no settings": (_card(lambda c: c.update(settings={})), "no card of a defense|channels"),
    "other widths": (
        _card(lambda c: c.update(settings={"channels": 1, "widths": [4, 4], "depths": [1, 1]})),
        r"weights.safetensors does not fit narrow-unet \(.+\)\.",
    ),
    "cut, old card": (_weights(lambda w: w[:-100], OLD), r"weights.safetensors does not fit narrow-unet \(.+\)\."),
    "empty, old card": (_weights(lambda w: b"", OLD), "weights.safetensors does not fit narrow-unet"),
    "int64, old card": (_weights(_integers, OLD), r"weights.safetensors does not fit .* is torch\.int64"),
    "cut": (_weights(lambda w: w[:-100]), "weights.safetensors is damaged"),
    "zeroed": (_weights(lambda w: w[:-400] + bytes(400)), "weights.safetensors is damaged"),
    "int64": (_weights(_integers), "weights.safetensors is damaged"),
    "of another": (_weights(_halved), "weights.safetensors is damaged, or holds other weights"),
    "edited threat": (_edit("Linf:8/255", "Linf:16/255"), r"defense.json was edited after it was written \(its threat"),
    "edited guides": (_edit('"name": "', '"name": "x'), r"defense.json was edited .*\(its guides"),
    "edited digest": (
        _edit('"weights_sha256": "', '"weights_sha256": "0'),
        r"defense.json was edited .*weights_sha256",
    ),
    "digests of nothing": (_edit('"digests": {', '"digests": {}, "more": {'), r"defense.json was edited"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_load_of_damaged_files_raises_one_sentence(name: str, tmp_path: Path) -> None:
    damage, words = DAMAGES[name]
    defense().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=words) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_defense_json_has_format_1_and_newer_is_refused(tmp_path: Path) -> None:
    defense().save(tmp_path)
    path = tmp_path / "defense.json"
    assert json.loads(path.read_text())["format"] == 1
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(InputError, match="format 2"):
        load(tmp_path)
    path.write_text(path.read_text().replace('"format": 2,', ""))
    assert load(tmp_path).card == defense().card


def test_load_of_a_card_without_digests_is_not_verified(tmp_path: Path) -> None:
    defense().save(tmp_path)
    assert load(tmp_path).verified
    OLD(tmp_path)
    assert not load(tmp_path).verified
    assert load(tmp_path).card == defense().card


def test_load_of_a_missing_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere holds no defense\.json"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("given", [lambda x: x, "smallcnn", nn.Identity, None])
def test_what_is_no_module_is_refused_as_defense_and_classifier(given: Any) -> None:
    for make in (lambda: Defended(given, classifier()), lambda: Defended(nn.Identity(), given), lambda: Guide(given)):
        with pytest.raises(InputError, match=r"expected a torch\.nn\.Module"):
            make()


@pytest.mark.parametrize("given", [None, 3, ["runs"]])
def test_load_of_what_is_no_path_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="expected a path"):
        load(given)


@pytest.mark.parametrize(("value", "words"), [(float("nan"), "NaN"), (float("inf"), "infinite"), (0.0, "only zeros")])
def test_load_of_dead_weights_is_refused(value: float, words: str, tmp_path: Path) -> None:
    """A training that diverged saves them."""
    dead = defense()
    for tensor in dead.preprocessor.state_dict().values():
        tensor.fill_(value) if tensor.is_floating_point() else None
    dead.save(tmp_path)
    with pytest.raises(InputError, match=words):
        load(tmp_path)


def test_defended_of_swapped_arguments_raises() -> None:
    with pytest.raises(InputError, match=r"write Defended\(defense, classifier\)"):
        Defended(classifier(), Defense(preprocessor(), DefenseCard("narrow-unet")))
