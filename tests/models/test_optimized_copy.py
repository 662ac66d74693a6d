from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.folded_networks import NORMS, layers_before_norms, lived_in
from helpers.narrow_classifiers import narrow
from helpers.narrow_preprocessors import slender
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from forefend import data
from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.models import classifiers, preprocessors
from forefend.models.batchnorm_folding import Affine, _traced, affine, foldable, folded
from forefend.models.classifiers import Normalized, feature_layers_of
from forefend.models.classifiers.pretrained import load_weights
from forefend.models.defended import Defended
from forefend.models.fingerprint import state_digest
from forefend.models.freezing import frozen
from forefend.models.guide import Guide, read
from forefend.models.optimized_copy import OptimizedCopy, optimized_copy
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import Linf

CLASSIFIERS = [(f"classifier {name}", name, narrow) for name in classifiers.ARCHITECTURES]
PREPROCESSORS = [(f"preprocessor {name}", name, slender) for name in preprocessors.ARCHITECTURES]
EVERY = pytest.mark.parametrize(
    ("name", "build"), [pytest.param(n, b, id=i) for i, n, b in CLASSIFIERS + PREPROCESSORS]
)


def images(count: int = 4, channels: int = 3, size: int = 16) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(count))


def made(name: str, build: Callable[..., nn.Module]) -> nn.Module:
    """The architecture as if it had been trained, normalized where it is a classifier."""
    if build is slender:
        net = lived_in(slender(name), images(8))
        if name in ("dncnn", "narrow-dncnn"):  # they start as the identity, for which anything would do
            nn.init.normal_(net.last.weight, std=0.1)
        return net
    net = narrow(name, size=16)
    return lived_in(Normalized(net, (0.5, 0.4, 0.45), (0.2, 0.25, 0.2)), images(8))


def gradient(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs, and the input gradient of a sum of them with fixed random weights."""
    x = x.clone().requires_grad_()
    out = f(x)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5)).to(out)
    return out.detach(), torch.autograd.grad((out * weights).sum(), x)[0]


def off(a: Tensor, b: Tensor) -> float:
    """The largest difference, in parts of the largest value."""
    return float((a - b).detach().abs().max() / a.detach().abs().max())


def cosine(a: Tensor, b: Tensor) -> float:
    return float(F.cosine_similarity(a.flatten(), b.flatten(), dim=0))


def exactly(net: nn.Module, plan: dict[str, str | None]) -> tuple[nn.Module, nn.Module]:
    """The network and its rewritten copy, in float64."""
    plain = copy.deepcopy(frozen(net)).double()
    return plain, OptimizedCopy(plain, plan, torch.float64).copy


@EVERY
def test_every_architecture_keeps_its_outputs_and_gradients(name: str, build: Callable[..., nn.Module]) -> None:
    net, x = made(name, build), images()
    if list(net.modules())[1:]:
        list(net.modules())[-1].train()  # a mode and a flag that only an untouched network keeps
    for parameter in list(net.parameters())[::2]:
        parameter.requires_grad = False
    before = state_digest(net)
    prepared = optimized_copy(net, x)
    plain = copy.deepcopy(frozen(net))
    (out, towards), (own, its) = gradient(plain, x), gradient(prepared, x)
    assert own.dtype == its.dtype == torch.float32
    assert off(out, own) <= 3e-5
    errors = (towards - its).flatten(1).norm(dim=1) / towards.flatten(1).norm(dim=1)
    assert float(errors.median()) <= 2e-3
    assert float(errors.max()) <= 0.1  # rounding turns over a ReLU here and there, in one of the two
    if build is narrow:
        assert torch.equal(plain(x).argmax(1), prepared(x).argmax(1))
    for a, b in zip(*(gradient(f, x.double()) for f in exactly(net, prepared.plan)), strict=True):
        assert off(a, b) <= 1e-10
    assert not any(isinstance(module, NORMS) for module in prepared.modules())
    assert prepared.plan == layers_before_norms(net)
    assert bool(prepared.notes) == (None in prepared.plan.values())
    assert not any(module.training for module in prepared.modules())
    assert not any(parameter.requires_grad for parameter in prepared.parameters())
    half = OptimizedCopy(net, prepared.plan, torch.bfloat16)
    assert {m.weight.dtype for m in half.modules() if isinstance(m, nn.Conv2d | nn.Linear)} <= {torch.bfloat16}
    (a, slope), (b, slope_b) = gradient(plain, x), gradient(half, x)
    assert b.dtype == slope_b.dtype == torch.float32
    # Weights drawn at random multiply rounding, deep networks most: those that are trained do better, below.
    assert float((a - b).norm() / a.norm()) <= 0.2
    assert cosine(slope, slope_b) >= 0.5
    assert state_digest(net) == before


SHALLOW = ["cnn", "fastat", "lenet5", "madry-mnist", "marabou", "mlp", "resnet4b"]


@pytest.mark.parametrize("name", SHALLOW)
def test_bf16_gradients_of_shallow_networks_agree(name: str) -> None:
    net, x = made(name, narrow), images()
    assert cosine(gradient(frozen(net), x)[1], gradient(optimized_copy(net, x, precision="bf16"), x)[1]) > 0.98


def test_a_defended_classifier_is_prepared_as_a_whole() -> None:
    g, f, x = made("narrow-unet", slender), made("resnet20", narrow), images()
    defended = Defended(g, f)
    before = [state_digest(network) for network in (defended, g, f)]
    prepared = optimized_copy(defended, x)
    assert len(prepared.plan) == 26
    assert None not in prepared.plan.values()
    assert off(defended.eval()(x), prepared(x)) <= 3e-5
    for a, b in zip(*(gradient(h, x.double()) for h in exactly(defended, prepared.plan)), strict=True):
        assert off(a, b) <= 1e-10
    assert [state_digest(network) for network in (g, f)] == before[1:]


CHOICES = st.lists(
    st.sampled_from(["conv", "grouped", "transposed", "norm", "norm", "norm", "relu", "dropout", "identity", "pool"]),
    min_size=1,
    max_size=8,
)


@settings(max_examples=25)
@given(CHOICES, st.booleans(), st.booleans(), st.integers(0, 1000))
def test_any_chain_of_modules_keeps_its_outputs(kinds: list[str], bias: bool, scaled: bool, seed: int) -> None:
    torch.manual_seed(seed)
    make: dict[str, Callable[[], nn.Module]] = {
        "conv": lambda: nn.Conv2d(6, 6, 3, padding=1, bias=bias, padding_mode="reflect"),
        "grouped": lambda: nn.Conv2d(6, 6, 3, padding=1, groups=3, bias=bias),
        "transposed": lambda: nn.ConvTranspose2d(6, 6, 4, 2, 1, groups=2, bias=bias),
        "norm": lambda: nn.BatchNorm2d(6, affine=scaled, eps=1e-3),
        "relu": lambda: nn.ReLU(inplace=bias),
        "dropout": nn.Dropout,
        "identity": nn.Identity,
        "pool": lambda: nn.AvgPool2d(2),
    }
    head: list[nn.Module] = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5), nn.BatchNorm1d(5)]
    net = nn.Sequential(nn.Conv2d(3, 6, 1), *(make[kind]() for kind in kinds), *head)
    for module in net.modules():
        if isinstance(module, NORMS):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 3)
            if scaled and module.weight is not None:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    x = images(2)
    prepared = optimized_copy(net, x)
    chain = pairwise(["conv", *kinds, "linear", "norm"])
    wanted = sum(b == "norm" and a in ("conv", "grouped", "transposed", "linear") for a, b in chain)
    assert sum(layer is not None for layer in prepared.plan.values()) == wanted
    plain, rewritten = exactly(net, prepared.plan)
    torch.testing.assert_close(rewritten(x.double()), plain(x.double()), rtol=1e-10, atol=1e-10)


class Crossed(nn.Module):
    """Defined in one order, run in another."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm_b = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.b, self.norm_a = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm_b(self.b(F.relu(self.norm_a(self.a(x)))))


class ReadTwice(Crossed):
    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.norm_b(self.b(self.norm_a(y) + y))


class ReadByTwo(Crossed):
    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(self.norm_a(y)) + self.norm_b(y)


class ChangedInPlace(Crossed):
    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y += 1
        return self.norm_b(self.b(self.norm_a(y)))


class UsedTwice(Crossed):
    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_a(self.a(x))
        return self.norm_b(self.b(self.b(y)))


class NormUsedTwice(Crossed):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm_a(self.b(self.norm_a(self.a(x))))


class WeightReadElsewhere(Crossed):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm_b(self.b(self.norm_a(self.a(x)))) + self.a.weight.mean()


class Returned(Crossed):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.a(x)
        return self.norm_b(self.b(self.norm_a(y))), y


class Branching(Crossed):
    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(self.norm_a(y) if x.mean() > 0.5 else self.norm_b(y))


class Opaque(nn.Module):
    """Put before one of these, it hides the flow from symbols: they have no shape to count."""

    def forward(self, x: Tensor) -> Tensor:
        assert len(range(x.shape[1])) == 3
        out: Tensor = super().forward(x)
        return out


BOTH = {"norm_a": "a", "norm_b": "b"}
FLOWS: dict[type[nn.Module], dict[str, str | None]] = {
    Crossed: BOTH,
    ReadTwice: BOTH | {"norm_a": None},
    ReadByTwo: {"norm_a": None, "norm_b": None},
    ChangedInPlace: BOTH | {"norm_a": None},
    UsedTwice: BOTH | {"norm_b": None},
    NormUsedTwice: {"norm_a": None, "norm_b": None},
    WeightReadElsewhere: BOTH | {"norm_a": None},
    Returned: BOTH | {"norm_a": None},
    Branching: {"norm_a": None, "norm_b": None},
}


@pytest.mark.parametrize("opaque", [False, True], ids=["traced", "watched"])
@pytest.mark.parametrize("kind", FLOWS, ids=lambda kind: kind.__name__)
def test_foldable_follows_the_data_flow(kind: type[nn.Module], opaque: bool) -> None:
    """BatchNorms of a fresh network are next to the identity: a wrong fold would not show in its outputs."""
    net, x = (type("Hidden", (Opaque, kind), {}) if opaque else kind)().eval(), images()
    assert foldable(net, x) == FLOWS[kind]
    assert (_traced(net) is None) == (opaque or kind is Branching)
    prepared = optimized_copy(net, x)
    assert prepared.plan == FLOWS[kind]
    for norm in (net.norm_a, net.norm_b):
        nn.init.normal_(norm.running_mean)
        nn.init.normal_(norm.weight)
    prepared.refresh()
    for batch in (x, x / 4):  # both sides of the branch
        for a, b in zip(_tuple(net(batch)), _tuple(prepared(batch)), strict=True):
            assert off(a, b) < 1e-5


def _tuple(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def test_foldable_requires_both_analyses_to_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forefend.models.batchnorm_folding._traced", lambda network: {("a", "norm_a")})
    assert foldable(Crossed().eval(), images()) == {"norm_a": "a", "norm_b": None}


LAYERS = [
    (nn.Conv2d(4, 6, 3, groups=2), (4, 5, 5)),
    (nn.Conv2d(4, 6, 3, bias=False, padding=1, padding_mode="circular"), (4, 5, 5)),
    (nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2), (4, 5, 5)),
    (nn.Linear(4, 6), (4,)),
]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=str)
def test_a_folded_layer_is_the_layer_and_its_norm(layer: nn.Module, shape: tuple[int, ...], scaled: bool) -> None:
    norm = (nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d)(6, eps=0.1, affine=scaled).double().eval()
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2)
    layer, x = layer.double(), torch.rand(3, *shape, dtype=torch.float64)
    copied = copy.deepcopy(layer)
    weight, bias = folded(layer, norm)
    copied.weight, copied.bias = nn.Parameter(weight), nn.Parameter(bias)
    torch.testing.assert_close(copied(x), norm(layer(x)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(Affine(*affine(norm))(layer(x)), norm(layer(x)), rtol=1e-12, atol=1e-12)


def test_tied_weights_are_not_folded() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).eval()
    net[2].weight = net[0].weight
    assert foldable(net, images()) == {"1": None, "3": None}
    assert optimized_copy(lived_in(net, images()), images()).plan == {"1": None, "3": None}


def test_a_norm_over_another_axis_than_the_layer_s_is_not_folded() -> None:
    """Over (B, 3, 3) a linear layer's features are the last axis, and BatchNorm's channels the second."""
    net = nn.Sequential(nn.Flatten(2), nn.Linear(256, 3), nn.BatchNorm1d(3)).eval()
    assert foldable(net, images()) == {"2": None}


class Own(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_subclassed_and_hooked_norms_are_kept_with_a_note() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 1), Own(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False))
    net.append(nn.BatchNorm2d(3))
    hooked = nn.Conv2d(3, 3, 1)
    hooked.register_forward_hook(lambda module, inputs, output: output + 1)
    net.extend(
        [hooked, nn.BatchNorm2d(3), nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1)), nn.BatchNorm2d(3)]
    )
    lived_in(net[4:], images())
    prepared = optimized_copy(net, images())
    assert prepared.plan == {"4": None, "6": None, "8": None}
    assert [type(prepared.copy[at]) for at in (1, 3, 4)] == [Own, nn.BatchNorm2d, Affine]
    assert [note.partition(" BatchNorms ")[0] for note in prepared.notes] == ["3 of 5", "2 of 5"]
    assert off(net.eval()(images()), prepared(images())) < 1e-5


class Rescaled(nn.Module):
    """Its outputs depend on what the convolution holds, in a way that no operation shows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) * (1 if self.conv.bias is None else 3)


def test_fold_that_changes_outputs_is_dropped() -> None:
    net = Rescaled().eval()
    net.conv.bias = None
    prepared = optimized_copy(net, images())
    assert prepared.plan == {}
    assert "would change the outputs" in prepared.notes[0]
    assert off(net(images()), prepared(images())) < 1e-5


class InFloat32(Crossed):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


def test_float32_only_network_is_verified_in_float32() -> None:
    assert optimized_copy(lived_in(InFloat32(), images()), images()).plan == BOTH


class NoBfloat16(Crossed):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if y.dtype == torch.bfloat16:
            raise RuntimeError("not implemented for 'BFloat16'")
        return y


def test_network_without_bf16_stays_in_fp32_with_a_note() -> None:
    net = lived_in(NoBfloat16(), images())
    prepared = optimized_copy(net, images(), precision="bf16")
    assert prepared.dtype == torch.float32
    assert "stays in fp32, as it does not work in bf16: not implemented" in prepared.notes[-1]
    assert off(net(images()), prepared(images())) < 1e-5


class Full(nn.Module):
    """A linear network that finds no memory for features of one precision."""

    def __init__(self, without: torch.dtype) -> None:
        super().__init__()
        self.layer, self.without = nn.Conv2d(3, 4, 3), without

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layer(x)
        if features.dtype is self.without:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return features.mean((2, 3))


@pytest.mark.parametrize("without", [torch.float32, torch.float64, torch.bfloat16])
def test_out_of_memory_errors_are_raised(without: torch.dtype) -> None:
    with pytest.raises(RuntimeError, match=r"^CUDA out of memory"):
        optimized_copy(Full(without), torch.rand(2, 3, 8, 8), precision="bf16")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_copy_is_a_snapshot_until_refresh(precision: str, net: nn.Module, x: Tensor, y: Tensor) -> None:
    net.insert(2, nn.ConvTranspose2d(5, 5, 3, padding=1, groups=5))
    net.insert(3, nn.BatchNorm2d(5))
    net.insert(4, nn.Sequential(nn.ReLU(), nn.BatchNorm2d(5)))
    prepared = optimized_copy(net, x, precision=precision)
    assert prepared.plan == {"1": "0", "3": "2", "4.1": None}
    old, places = prepared(x), [t.data_ptr() for t in prepared.copy.state_dict().values()]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    before = state_digest(net)
    assert torch.equal(prepared(x), old)
    prepared.refresh()
    assert state_digest(net) == before
    assert [t.data_ptr() for t in prepared.copy.state_dict().values()] == places
    assert torch.equal(prepared(x), optimized_copy(net, x, precision=precision)(x))
    assert not torch.allclose(prepared(x), old, rtol=0.1)


def test_refresh_without_the_original_raises(net: nn.Module, x: Tensor) -> None:
    prepared = optimized_copy(copy.deepcopy(net), x)
    gc.collect()
    with pytest.raises(InputError, match="no longer exists"):
        prepared.refresh()
    assert prepared(x).shape == (6, 4)


def test_it_shares_no_tensor_with_the_network(net: nn.Module, x: Tensor) -> None:
    theirs = {t.data_ptr() for t in (*net.parameters(), *net.buffers())}
    prepared = optimized_copy(net, x)
    assert theirs.isdisjoint(t.data_ptr() for t in (*prepared.parameters(), *prepared.buffers()))


def test_copy_ignores_train_and_requires_grad(net: nn.Module, x: Tensor, y: Tensor) -> None:
    prepared = optimized_copy(net, x, precision="bf16")
    out = prepared(x)
    prepared.train().requires_grad_()
    for module in prepared.children():
        module.requires_grad_(False)
    assert torch.equal(prepared(x), out)
    assert not prepared.training
    asking = x.clone().requires_grad_()
    F.cross_entropy(prepared(asking), y).backward()
    assert all(parameter.grad is None for parameter in prepared.parameters())
    assert asking.grad is not None
    assert asking.grad.dtype == torch.float32
    with pytest.raises(InputError, match="folded weights"):
        prepared.load_state_dict(net.state_dict())
    assert torch.equal(copy.deepcopy(prepared)(x), out)
    assert torch.equal(frozen(prepared)(x), out)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_and_images_can_be_viewed_as_rows(precision: str) -> None:
    prepared = optimized_copy(made("narrow-unet", slender), images(), precision=precision)
    out, slope = gradient(prepared, images())
    assert out.view(4, -1).shape == slope.view(4, -1).shape == (4, 768)


def test_an_outer_autocast_does_not_reach_it(net: nn.Module, x: Tensor) -> None:
    prepared = optimized_copy(net, x)
    with torch.autocast("cpu", torch.bfloat16):
        inside = prepared(x)
    assert torch.equal(inside, prepared(x))


def test_attack_on_the_copy_transfers_to_the_network() -> None:
    f, x = made("cnn", narrow), images(16)
    y = f(x).argmax(1)
    attack, rng = PGD(Linf(0.1), 10, 0.02), KeyedRNG(torch.arange(16))
    views = {"plain": f, "fp32": optimized_copy(f, x), "bf16": optimized_copy(f, x, precision="bf16")}
    lost = {name: int((f(attack(view, x, y, rng=rng)).argmax(1) != y).sum()) for name, view in views.items()}
    assert lost["plain"] == lost["fp32"] >= 8
    assert abs(lost["plain"] - lost["bf16"]) <= 1


def test_copy_has_no_feature_layers() -> None:
    prepared = optimized_copy(made("resnet20", narrow), images())
    with pytest.raises(InputError, match="feature_layers"):
        feature_layers_of(prepared)
    with pytest.raises(InputError, match="no tap"):
        read(prepared, images(), ["stages.1"])
    with pytest.raises(InputError, match="no tap"):
        Guide(prepared).read(images(), ["stages.1"])


def test_bad_input_is_refused(net: nn.Module, x: Tensor) -> None:
    with pytest.raises(InputError, match="function is no torch module"):
        optimized_copy(lambda x: x, x)  # type: ignore[arg-type, return-value]
    with pytest.raises(InputError, match="no precision called 'fp16'"):
        optimized_copy(net, x, precision="fp16")
    with pytest.raises(InputError, match=r"does not accept images of shape \(1, 8, 8\)"):
        optimized_copy(net, x[:, :1])
    with pytest.raises(InputError, match="divide by 255"):
        optimized_copy(net, 255 * x)


FILES = {
    "akamaster-cifar10-resnet20.th": ("resnet20", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "akamaster-cifar10-resnet56.th": ("resnet56", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "chenyaofo-cifar10-resnet20.pth": ("resnet20", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}


@pytest.mark.parametrize(
    "file", [pytest.param(file, marks=[pytest.mark.slow] * ("resnet56" in file)) for file in FILES]
)
def test_published_classifiers_keep_their_outputs(file: str, real_data: Path) -> None:
    name, mean, std = FILES[file]
    net = load_weights(name, real_data / "classifiers" / file, mean=mean, std=std)
    x, y, _ = data.load("cifar-10", "test", real_data).batch(torch.arange(200))
    prepared, half = optimized_copy(net, x), optimized_copy(net, x, precision="bf16")
    assert prepared.notes == half.notes == ()
    with torch.inference_mode():
        plain, same, near = (torch.cat([f(part) for part in x.split(50)]) for f in (net, prepared, half))
    assert off(plain, same) < 1e-5
    assert torch.equal(plain.argmax(1), same.argmax(1))
    assert int((plain.argmax(1) == near.argmax(1)).sum()) >= 198  # all 200 where it was first measured

    def slope(f: nn.Module) -> Tensor:
        asking = x[:20].clone().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(f(asking), y[:20], reduction="sum"), asking)[0]

    exact = slope(frozen(net))
    assert cosine(exact, slope(prepared)) > 0.9999
    assert cosine(exact, slope(half)) > 0.95


class Cast(nn.Module):
    """A network that casts float32 images to the precision of its weights."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        self.to(dtype).eval()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x.to(self.inner[0].weight.dtype))
        return logits


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_copy_of_a_casting_network_keeps_its_precision(dtype: torch.dtype, precision: str) -> None:
    network, x = Cast(dtype), torch.rand(3, 1, 8, 8, requires_grad=True)
    fast = optimized_copy(network, x.detach(), precision=precision)
    assert any("its own" in note for note in fast.notes)
    logits = fast(x)
    assert logits.dtype is torch.float32
    torch.testing.assert_close(logits, network(x).float(), atol=0.02, rtol=0)
    assert torch.autograd.grad(logits.sum(), x)[0].isfinite().all()
