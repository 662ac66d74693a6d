"""Views and copies of networks that hold what `copy.deepcopy` refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from helpers.toy_networks import SIZE, classifier, toy_images
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.evaluation.certification.randomized_smoothing import certify
from forefend.evaluation.evaluate import evaluate
from forefend.models.defended import Defended
from forefend.models.fingerprint import state_digest
from forefend.models.freezing import deep_copy, frozen
from forefend.models.guide import Guide
from forefend.models.optimized_copy import optimized_copy

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
X = torch.rand(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


class Stores(nn.Module):
    """A classifier that stores an activation, at several places."""

    def __init__(self) -> None:
        super().__init__()
        self.network = classifier()
        self.all: dict[str, list[Tensor]] = {}
        self.record = Record()

    def forward(self, x: Tensor) -> Tensor:
        self.features = self.network[:3](x)
        self.all["last"] = [self.features]
        self.record.features = self.features * 2
        logits: Tensor = self.network[3:](self.features)
        return logits


class Record:
    """An object that holds an activation."""

    features: Tensor | None = None


class Writer:
    """An object such as a summary writer: what it holds must not be copied in part."""

    def __init__(self) -> None:
        self.lock, self.calls = threading.Lock(), 0

    def add(self) -> None:
        with self.lock:
            self.calls += 1


class Logs(nn.Module):
    """A classifier that writes in each forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.writer = classifier(), Writer()

    def forward(self, x: Tensor) -> Tensor:
        self.writer.add()
        logits: Tensor = self.network(x)
        return logits


def with_attribute(value: Any) -> nn.Module:
    network = classifier()
    network.extra = value
    return network


def changed(change: Callable[[nn.Module], Any]) -> nn.Module:
    network = classifier()
    change(network[0])
    return network


KINDS: dict[str, Callable[[], nn.Module]] = {
    "stored activation": Stores,
    "summary writer": Logs,
    "lock": lambda: with_attribute([threading.Lock()]),
    "generator": lambda: with_attribute({"a": torch.Generator()}),
    "Python generator": lambda: with_attribute(i for i in range(3)),
    "weight norm": lambda: changed(nn.utils.parametrizations.weight_norm),
    "old spectral norm": lambda: changed(nn.utils.spectral_norm),
    "spectral norm": lambda: changed(nn.utils.parametrizations.spectral_norm),
    "pruning": lambda: changed(lambda layer: nn.utils.prune.l1_unstructured(layer, "weight", 0.3)),
    "TorchScript": lambda: torch.jit.script(nn.Sequential(*classifier())),
    "TorchScript inside": lambda: nn.Sequential(torch.jit.trace(nn.Sequential(*classifier()), X)),
}


def used(kind: str) -> nn.Module:
    """The network after a forward and a backward pass in train mode, as after training."""
    torch.manual_seed(0)
    network = KINDS[kind]().train()
    network(X).sum().backward()
    return network.eval()


@pytest.fixture(params=KINDS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    return used(request.param)


def test_frozen_view_of_any_network_follows_the_original(network: nn.Module) -> None:
    before, expected = state_digest(network), network(X).detach()
    view = frozen(network)
    assert state_digest(network) == before
    assert state_digest(view).split("|")[0] == before.split("|")[0]
    x = X.clone().requires_grad_()
    logits = view(x)
    assert torch.equal(logits, expected)
    assert torch.autograd.grad(logits.sum(), x)[0].abs().sum() > 0
    assert state_digest(network) == before
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)
    assert torch.equal(view(X), network(X))
    assert not torch.equal(view(X), expected)


def test_deep_copy_of_any_network_is_independent(network: nn.Module) -> None:
    copied, expected = deep_copy(network), network(X).detach()
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(network(X), expected)


def test_library_accepts_any_network(network: nn.Module) -> None:
    images = toy_images(8)
    assert len(evaluate(network, images, "quick", "Linf:0.1", allow_weak=True)) > 1
    certify(network, images, sigma=0.1, n=20, n0=5, alpha=0.01)
    assert torch.equal(Guide(network)(X), network(X))
    assert torch.equal(Defended(nn.Identity(), network)(X), network(X))
    torch.testing.assert_close(optimized_copy(network, X)(X), network(X).detach(), atol=1e-5, rtol=0)


def test_view_shares_a_writer_and_keeps_its_own_activation() -> None:
    logs = Logs()
    frozen(logs)(X)
    assert logs.writer.calls == 1
    stores = used("stored activation")
    features = stores.features
    frozen(stores)(2 * X)
    assert stores.features is features
    assert torch.equal(stores.record.features, 2 * features)


def test_weights_made_in_inference_mode_get_a_view_with_gradients() -> None:
    with torch.inference_mode():
        network = classifier()
    x = X.clone().requires_grad_()
    assert torch.autograd.grad(frozen(network)(x).sum(), x)[0].abs().sum() > 0


def test_module_that_refuses_to_be_copied_is_named() -> None:
    class Refuses(nn.Module):
        def __deepcopy__(self, memo: Any) -> None:
            raise RuntimeError("no copies")

    with pytest.raises(InputError, match=r"Sequential cannot be copied \(no copies\)"):
        frozen(nn.Sequential(Refuses()))
