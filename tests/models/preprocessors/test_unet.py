from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from forefend.checks import InputError
from forefend.models.preprocessors import DenoisingUNet, ResidualUNet, build, narrow_unet
from forefend.models.preprocessors.unet import UNet


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def multiplications(net: nn.Module, *shape: int) -> int:
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(*shape, device="meta"))
    return counter.get_total_flops() // 2


def test_the_papers_networks_have_their_parameters() -> None:
    with torch.device("meta"):
        assert count(DenoisingUNet()) == 11_033_987
        assert count(ResidualUNet()) == 11_033_984
        assert count(build("residual-unet", channels=3)) == 11_033_984


def test_the_networks_cost_what_they_say() -> None:
    with torch.device("meta"):
        net, paper = narrow_unet().eval(), DenoisingUNet().eval()
    assert count(net) == 117_936 + 640 + 51
    assert multiplications(net, 1, 3, 32, 32) == 28_803_072
    assert multiplications(paper, 1, 3, 32, 32) == pytest.approx(792e6, rel=1e-3)


def nearest(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(x, size=size)


def test_stages_round_up_and_return_to_lateral_sizes() -> None:
    seen: list[tuple[int, ...]] = []

    def resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
        seen.append((*x.shape[1:], *size))
        return nearest(x, size)

    features = UNet(1, (2, 3, 5), (1, 2, 1), resize).eval()(torch.rand(1, 1, 9, 6))
    assert seen == [(5, 3, 2, 5, 3), (3, 5, 3, 9, 6)]
    assert features.shape == (1, 2, 9, 6)


def test_one_stage_by_hand() -> None:
    torch.manual_seed(0)
    net = DenoisingUNet(1, (2,), (1,)).eval()
    convolution, norm, _ = net.body.down[0]
    norm.running_mean.uniform_()
    x = torch.rand(1, 1, 5, 4)
    features = F.relu((F.conv2d(x, convolution.weight, padding=1) - norm.running_mean.view(1, 2, 1, 1)) / 1.00001**0.5)
    painted = torch.einsum("oc,bchw->bohw", net.last.weight[:, :, 0, 0], features) + net.last.bias
    torch.testing.assert_close(net(x), 1 / (1 + (-painted).exp()))


def test_zero_last_layer_returns_gray_or_the_image() -> None:
    painter, mender = DenoisingUNet(1, (2, 3), (1, 1)), ResidualUNet(1, (2, 3), (1, 1))
    x = torch.rand(2, 1, 5, 4)
    for net in (painter, mender):
        nn.init.zeros_(net.last.weight)
    nn.init.zeros_(painter.last.bias)
    assert torch.equal(painter(x), torch.full_like(x, 0.5))
    assert torch.equal(mender(x), x)
    assert mender.last.bias is None


def test_the_two_networks_resize_as_their_papers_say() -> None:
    x = torch.tensor([[[[0.0, 1.0]]]])
    assert DenoisingUNet(1, (2, 2), (1, 1)).body.resize(x, (1, 4)).flatten().tolist() == [0, 0, 1, 1]
    assert ResidualUNet(1, (2, 2), (1, 1)).body.resize(x, (1, 4)).flatten().tolist() == [0, 0.25, 0.75, 1]


@settings(deadline=None, max_examples=40)
@given(
    channels=st.sampled_from([1, 3]),
    stages=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2)), min_size=1, max_size=5),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_every_size_and_every_form_keeps_the_shape(
    channels: int, stages: list[tuple[int, int]], height: int, width: int
) -> None:
    widths, depths = zip(*stages, strict=True)
    x = torch.rand(1, channels, height, width)
    assert DenoisingUNet(channels, widths, depths).eval()(x).shape == x.shape
    assert ResidualUNet(channels, widths, depths).eval()(x).shape == x.shape


@pytest.mark.parametrize(
    ("channels", "widths", "depths", "words"),
    [
        (3, (8, 16), (2,), r"widths \[8, 16\] and depths \[2\]"),
        (3, (), (), r"widths \[\] and depths \[\]"),
        (3, (8, 0), (1, 1), r"widths \[8, 0\] and depths \[1, 1\]"),
        (3, (8, 8), (1, 0), r"depths \[1, 0\]"),
        (0, (8,), (1,), r"has 0 channels"),
    ],
)
@pytest.mark.parametrize("form", [DenoisingUNet, ResidualUNet])
def test_forms_that_cannot_be_built_are_refused(
    form: type[nn.Module], channels: int, widths: tuple[int, ...], depths: tuple[int, ...], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        form(channels, widths, depths)
