"""Robustness under transfer learning (1905.02675): the loss, what is retrained, heads and label leaking."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers.narrow_classifiers import narrow
from helpers.plain_recipes import EPS, ascend, batch_of, cast_of, equal, steps, yielded
from helpers.toy_networks import classifier, held, same, toy_cast, toy_images, train, trained, untouched
from torch import Tensor, nn

from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.models import classifiers
from forefend.models.classifiers import ARCHITECTURES, Normalized
from forefend.recipes import Natural, Transfer
from forefend.recipes.base import Batch, Networks
from forefend.recipes.transfer import Layers, everything, head, last_stage, predicted_labels, true_labels, with_new_head
from forefend.threat_models.lp import Linf

FGSM = Transfer(threat=Linf(EPS), steps=1, relative_step=1.0)


@pytest.mark.parametrize(("steps", "size"), [(1, 1.0), (7, 0.25)])
def test_transfer_averages_clean_and_attacked_losses(steps: int, size: float) -> None:
    networks, batch = cast_of(), batch_of()
    f = copy.deepcopy(networks.classifier)
    clean = F.cross_entropy(f(batch.x), batch.y)  # first, as in the authors' code: the attack sees the statistics moved
    f.eval()
    x_adv = ascend(lambda a: F.cross_entropy(f(a), batch.y, reduction="sum"), batch.x, batch.x, steps, size * EPS)
    f.train()
    expected = (clean + F.cross_entropy(f(x_adv), batch.y)) / 2
    recipe = Transfer(threat=Linf(EPS), steps=steps, relative_step=size)
    equal(yielded(recipe, networks, batch), expected, [(networks.classifier, f)])


def test_transfer_without_steps_is_natural_training() -> None:
    networks, batch = cast_of(), batch_of()
    f = copy.deepcopy(networks.classifier)
    equal(
        yielded(replace(FGSM, steps=0), networks, batch),
        yielded(Natural(), Networks(classifier=f), batch),
        [(networks.classifier, f)],
    )
    toys = toy_cast()
    train(Transfer(steps=0, epochs=2, batch_size=16, hold_out=0.2), toy_images(), toys)
    assert not same(trained(toys), trained(toy_cast()))


def examples(recipe: Transfer, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """What the recipe's attack made of a batch."""
    seen: list[Tensor] = []
    call = PGD.__call__

    def noting(*arguments: object, **more: object) -> Tensor:
        seen.append(call(*arguments, **more))  # type: ignore[arg-type]
        return seen[-1]

    with monkeypatch.context() as patch:
        patch.setattr(PGD, "__call__", noting)
        yielded(recipe, cast_of(), batch)
    return seen[0]


def test_transfer_with_predicted_labels_leaks_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(24)
    other = replace(batch, y=(batch.y + 1) % 4)
    blind = replace(FGSM, labels=predicted_labels)
    said = predicted_labels(cast_of().classifier.eval(), batch.x, batch.y)
    assert 0 < (said != batch.y).sum() < 24
    assert torch.equal(examples(blind, batch, monkeypatch), examples(blind, other, monkeypatch))
    assert not torch.equal(examples(FGSM, batch, monkeypatch), examples(FGSM, other, monkeypatch))
    assert torch.equal(true_labels(nn.Identity(), batch.x, batch.y), batch.y)
    agreed = (examples(FGSM, batch, monkeypatch) == examples(blind, batch, monkeypatch)).flatten(1).all(1)
    assert torch.equal(agreed, said == batch.y)


def test_transfer_freezes_statistics_outside_its_layers() -> None:
    def modes(layers: Layers, *, moving: bool) -> list[bool]:
        batch = replace(batch_of(), x=batch_of().x.float())
        recipe, network = Transfer(steps=0, layers=layers, moving_statistics=moving), classifier().train()
        list(steps(recipe, Networks(classifier=network), batch))
        return [m.training for m in network]

    assert modes(head, moving=False) == [False, False, False, False, True]
    assert modes(last_stage, moving=False) == [False, True, False, False, True]
    assert all(modes(head, moving=True))
    assert all(modes(everything, moving=False))


def count(modules: object) -> int:
    return sum(p.numel() for m in modules for p in m.parameters())  # type: ignore[attr-defined]


def test_transfer_layers_of_resnet_56_match_the_paper() -> None:
    network = classifiers.build("resnet56", channels=3, classes=10, size=32)
    assert count(head(network)) == 64 * 10 + 10
    convolutions = [m for part in last_stage(network) for m in part.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 18
    assert {m.out_channels for m in convolutions} == {64}
    assert last_stage(network)[-1] is head(network)[0]
    assert count(everything(network)) == 853_018
    inside = Normalized(network, 0.5, 0.5)
    assert [id(m) for m in last_stage(inside)] == [id(m) for m in last_stage(network)]


def test_transfer_optimizes_only_its_layers() -> None:
    network = classifiers.build("tinyresnet", channels=1, classes=4, size=8)
    for layers in (head, last_stage, everything):
        trainable = Transfer(layers=layers).configure_optimizers(Networks(classifier=network))["classifier"]
        assert sum(p.numel() for p in trainable.parameters()) == count(layers(network))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_with_new_head_accepts_every_architecture(name: str) -> None:
    torch.manual_seed(0)
    source = Normalized(narrow(name, size=16), 0.5, 0.5).eval()
    before = held(source)
    new = with_new_head(source, 7)
    assert new(torch.rand(2, 3, 16, 16)).shape == (2, 7)
    assert untouched(source, before)
    old, last = dict(source.named_parameters()), {id(p) for p in head(new)[0].parameters()}
    for key, parameter in new.named_parameters():
        assert parameter is not old[key]
        assert id(parameter) in last or torch.equal(parameter, old[key]), key
    assert count(head(new)) * 4 == count(head(source)) * 7


def test_with_new_head_uses_torchs_generator() -> None:
    source = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 4, bias=False))
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        heads.append(with_new_head(source, 5)[2])
    assert heads[0].bias is None
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert not torch.equal(heads[0].weight, heads[2].weight)


def test_with_new_head_without_a_layer_raises() -> None:
    with pytest.raises(InputError, match="no linear or convolutional layer to make a new head of"):
        with_new_head(nn.Sequential(nn.Flatten(), nn.ReLU()), 5)


def test_last_stage_without_feature_layers_raises() -> None:
    network = classifier()
    del network.feature_layers
    with pytest.raises(InputError, match=r"set classifier\.feature_layers = "):
        Transfer(layers=last_stage).configure_optimizers(Networks(classifier=network))


def test_transfer_keeps_the_preprocessor() -> None:
    networks = toy_cast()
    before = held(networks.preprocessor)
    train(Transfer(steps=1, epochs=1, hold_out=0.2), toy_images(), networks)
    assert untouched(networks.preprocessor, before)
