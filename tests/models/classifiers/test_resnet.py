from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forefend.models.classifiers import build
from forefend.models.classifiers.resnet import _BasicBlock, _Bottleneck, _PadShortcut


def test_option_a_subsamples_and_pads_both_sides() -> None:
    x = torch.arange(2 * 3 * 3.0).view(1, 2, 3, 3)
    zeros = [[0.0, 0.0], [0.0, 0.0]]
    expected = [[zeros, [[0.0, 2.0], [6.0, 8.0]], [[9.0, 11.0], [15.0, 17.0]], zeros]]
    assert _PadShortcut(2, 4, stride=2)(x).tolist() == expected


@given(before=st.integers(1, 4), more=st.integers(0, 4), height=st.integers(1, 9), width=st.integers(1, 9))
def test_option_a_has_the_shape_of_a_strided_convolution(before: int, more: int, height: int, width: int) -> None:
    x = torch.rand(2, before, height, width)
    shortcut = _PadShortcut(before, before + more, stride=2)(x)
    assert shortcut.shape == torch.nn.Conv2d(before, before + more, 3, stride=2, padding=1)(x).shape
    front = more // 2
    assert torch.equal(shortcut[:, front : front + before], x[:, :, ::2, ::2])
    assert not shortcut[:, :front].any()
    assert not shortcut[:, front + before :].any()


@pytest.mark.parametrize("name", ["resnet20", "resnet32", "resnet44", "resnet56", "tinyresnet"])
def test_options_a_and_b_differ_by_two_projections_only(name: str) -> None:
    with torch.device("meta"):
        a, b = (build(name, channels=3, classes=10, size=32, projection=option) for option in (False, True))
    extra = {key: value for key, value in b.named_parameters() if key not in dict(a.named_parameters())}
    widths = a.settings["widths"]
    added = sum(w1 * w2 + 2 * w2 for w1, w2 in pairwise(widths))
    assert sum(value.numel() for value in extra.values()) == added
    assert {key.split(".shortcut.")[0] for key in extra} == {"stages.1.0", "stages.2.0"}
    assert set(dict(a.named_parameters())) < set(dict(b.named_parameters()))


def test_option_b_with_an_identity_projection_is_option_a() -> None:
    torch.manual_seed(0)
    a, b = (_BasicBlock(2, 4, 2, projection).eval() for projection in (False, True))
    b.load_state_dict(a.state_dict(), strict=False)
    with torch.no_grad():
        b.shortcut[0].weight.zero_()
        b.shortcut[0].weight[1, 0] = b.shortcut[0].weight[2, 1] = 1
    x = torch.rand(3, 2, 7, 5)
    torch.testing.assert_close(b(x), a(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", [_BasicBlock, _Bottleneck])
def test_block_with_zero_weights_is_its_shortcut(block: type[_BasicBlock | _Bottleneck]) -> None:
    silent = block(4 * block.expansion, 4, 1, False).eval()
    last = silent.bn2 if block is _BasicBlock else silent.bn3
    torch.nn.init.zeros_(last.weight)
    x = torch.randn(2, 4 * block.expansion, 5, 5)
    assert torch.equal(silent(x), x.relu())


def test_logits_are_the_linear_layer_of_the_mean_over_pixels() -> None:
    torch.manual_seed(0)
    net = build("tinyresnet", channels=1, classes=3, size=8).eval()
    x = torch.rand(2, 1, 8, 8)
    features = net.stages(net.bn1(net.conv1(x)).relu())
    assert features.shape == (2, 32, 2, 2)
    pooled = features.sum((2, 3)) / 4
    torch.testing.assert_close(net(x), pooled @ net.linear.weight.T + net.linear.bias)
