from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.folded_networks import lived_in
from helpers.narrow_preprocessors import slender
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.preprocessors import ARCHITECTURES, AaaAutoencoder, ApeGan, DnCnn, RobustifierUNet, Rrdb, build

# (architecture, channels) -> parameters, as published or by hand.
COUNTS = {
    ("aaa-autoencoder", 1): 28_353,
    ("ape-gan", 1): 264_961,
    ("ape-gan", 3): 269_059,
    # The residual U-Net without the weights of its lateral connections.
    ("denoising-autoencoder", 3): 11_033_984 - 9 * (256 * 256 + 256 * 256 + 128 * 128 + 64 * 64),
    ("dncnn", 3): 558_400,
    ("identity", 3): 0,
    # 3 to 32 channels with a bias, three layers of 32 with BatchNorm, and back.
    ("narrow-dncnn", 3): 32 * (9 * 3 + 1) + 3 * 32 * (9 * 32 + 2) + 3 * 9 * 32,
    ("narrow-unet", 3): 118_627,
    ("nrp-3", 3): 2_161_795,
    ("nrp-23", 3): 16_550_275,
    ("residual-unet", 3): 11_033_984,
    ("robustifier-4", 3): 4_318_467,
    ("robustifier-8", 3): 17_263_107,
    ("robustifier-16", 3): 69_030_915,
    ("rtfe-autoencoder", 3): 11_033_987 - 9 * (256 * 256 + 256 * 256 + 128 * 128 + 64 * 64),
    ("rtfe-unet", 3): 11_033_987,
}


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("shape", COUNTS)
def test_parameter_counts_are_the_published_ones(shape: tuple[str, int]) -> None:
    name, channels = shape
    with torch.device("meta"):
        assert count(build(name, channels=channels)) == COUNTS[shape]


def test_every_architecture_has_a_parameter_count() -> None:
    assert {name for name, _ in COUNTS} == set(ARCHITECTURES)
    with torch.device("meta"):
        assert count(build("nrp-3", channels=3, blocks=5)) == 3_600_643
        assert count(build("dncnn", channels=3, width=128)) == 2_222_720


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_default_networks_keep_the_image_shape(name: str) -> None:
    with torch.device("meta"):
        for shape in ((1, 3, 32, 32), (1, 1, 28, 28), (1, 1, 8, 8)):
            assert build(name, channels=shape[1]).eval()(torch.empty(shape)).shape == shape


def test_autoencoder_uses_only_the_size_of_laterals() -> None:
    net = lived_in(slender("denoising-autoencoder"), images(4, 3, 8, 8))
    x = images(2, 3, 8, 8)
    bottom: list[Tensor] = []
    hook = net.body.down[-1].register_forward_hook(lambda *io: bottom.append(io[2]))
    change = net(x[:1]) - x[:1]
    hook.remove()
    net.body.down[-1].register_forward_hook(lambda *io: bottom[0])
    torch.testing.assert_close(net(x[1:]) - x[1:], change)
    assert not net.body.lateral


@pytest.mark.parametrize("clamp", [True, False])
def test_rrdb_clamps_by_default(clamp: bool) -> None:
    net = Rrdb(3, 1, width=4, growth=2, clamp=clamp)
    nn.init.constant_(net.last.weight, 0)
    net.last.bias.data = torch.tensor([-0.5, 0.25, 1.5])
    painted = net(images(2, 3, 5, 4))
    assert painted[0, :, 0, 0].tolist() == ([0, 0.25, 1] if clamp else [-0.5, 0.25, 1.5])
    assert net.settings["clamp"] is clamp
    assert build("nrp-3", channels=1).settings["clamp"] is True


def test_new_rrdb_returns_gray_images() -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        painted = Rrdb(3, 1)(images(2, 3, 8, 8))
        inside = (painted > 0) & (painted < 1)
        assert (inside.float().mean((0, 2, 3)) > 0.5).all()


def test_dense_blocks_by_hand() -> None:
    net = Rrdb(1, 1, width=2, growth=1, clamp=False)
    block = net.blocks[0].dense[0]
    x = torch.randn(1, 2, 4, 4)
    seen = [x]
    for layer in block.growing:
        seen.append(F.leaky_relu(F.conv2d(torch.cat(seen, 1), layer.weight, layer.bias, padding=1), 0.2))
    last = F.conv2d(torch.cat(seen, 1), block.last.weight, block.last.bias, padding=1)
    torch.testing.assert_close(block(x), x + 0.2 * last)
    for dense in net.blocks[0].dense:  # each now adds a fifth of a fifth
        for layer in (*dense.growing, dense.last):
            nn.init.zeros_(layer.weight)
            nn.init.ones_(layer.bias)
    torch.testing.assert_close(net.blocks[0](x), x + 0.2 * (x + 0.6))


def test_ape_gan_scales_and_pads_its_images() -> None:
    net = ApeGan(1).eval()
    seen: list[Tensor] = []
    net.down.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = images(1, 1, 6, 7)
    restored = net(x)
    assert seen[0].shape == (1, 1, 8, 8)
    torch.testing.assert_close(seen[0][..., :6, :7], 2 * x - 1)
    assert (seen[0][..., 6:, :7] == (2 * x - 1)[..., 5:, :]).all()
    assert (seen[0][..., 7] == seen[0][..., 6]).all()
    torch.testing.assert_close(restored, (net.up(net.down(seen[0])) + 1)[..., :6, :7] / 2)
    net(images(1, 1, 8, 4))
    assert seen[-1].shape == (1, 1, 8, 4)


def test_dncnn_starts_as_the_identity_with_orthogonal_weights() -> None:
    net, x = DnCnn(3, 4, 8), images(2, 3, 6, 6)
    assert torch.equal(net(x), x)
    inner = net.body[2].weight.flatten(1)
    torch.testing.assert_close(inner @ inner.T, torch.eye(8), atol=1e-5, rtol=0)
    norms = [module for module in build("dncnn", channels=3).modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 15
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-4, 0.95)}
    assert torch.equal(build("narrow-dncnn", channels=3)(x), x)


def test_dncnn_takes_the_noise_off() -> None:
    net, x = DnCnn(1, 2, 1).eval(), images(1, 1, 3, 3)
    for layer, value in ((net.body[0], 2.0), (net.last, 0.25)):
        nn.init.zeros_(layer.weight)
        layer.weight.data[0, 0, 1, 1] = value
    torch.testing.assert_close(net(x), x - 0.5 * x)


def test_robustifier_has_four_pools_and_lateral_sizes() -> None:
    net = RobustifierUNet(1, 1).eval()
    sides: list[tuple[int, ...]] = []
    for level in (*net.down, *net.up):
        level.register_forward_hook(lambda *io: sides.append(tuple(io[2].shape[1:])))
    net(images(1, 1, 32, 28))
    down = [(8, 32, 28), (16, 16, 14), (32, 8, 7), (64, 4, 4), (64, 2, 2)]
    assert sides == [*down, (32, 4, 4), (16, 8, 7), (8, 16, 14), (8, 32, 28)]


def test_robustifier_aligns_corners_and_puts_laterals_first() -> None:
    net = RobustifierUNet(1, 1).eval()
    joined: list[Tensor] = []
    outputs: list[Tensor] = []
    net.up[0].register_forward_pre_hook(lambda module, inputs: joined.append(inputs[0]))
    for level in net.down[3:]:
        level.register_forward_hook(lambda *io: outputs.append(io[2]))
    net(images(1, 1, 32, 32))
    assert torch.equal(joined[0][:, :64], outputs[0])
    up = joined[0][0, 64:]
    torch.testing.assert_close(up[:, ::3, ::3], outputs[1][0])
    torch.testing.assert_close(up[:, 0, 1], outputs[1][0, :, 0, 0] * 2 / 3 + outputs[1][0, :, 0, 1] / 3)


def test_aaas_autoencoder_keeps_a_quarter_of_each_side() -> None:
    net = AaaAutoencoder(1).eval()
    assert net.encoder(images(1, 1, 28, 28)).shape == (1, 32, 7, 7)
    assert net.encoder(images(1, 1, 9, 5)).shape == (1, 32, 3, 2)


@pytest.mark.parametrize(
    ("form", "settings", "words"),
    [
        (Rrdb, {"blocks": 0}, "RRDB has 0 blocks, width 64 and growth 32"),
        (Rrdb, {"growth": 0}, "growth 0"),
        (DnCnn, {"depth": 1}, "DnCNN has depth 1 and width 64"),
        (DnCnn, {"width": 0}, "DnCNN has depth 17 and width 0"),
        (RobustifierUNet, {"scale": 0}, "scale.* 0"),
    ],
)
def test_forms_that_cannot_be_built_are_refused(form: type[nn.Module], settings: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        form(3, **settings)
