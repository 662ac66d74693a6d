from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from forefend.checks import InputError
from forefend.data import crop_flip


def plain(x: Tensor, uniform: Tensor, pad: int) -> Tensor:
    """Augment one image after the other."""
    out = []
    for image, (row, column, mirror) in zip(x, uniform.tolist(), strict=True):
        channels, height, width = image.shape
        canvas = torch.zeros(channels, height + 2 * pad, width + 2 * pad)
        canvas[:, pad : pad + height, pad : pad + width] = image
        top, left = int(row * (2 * pad + 1)), int(column * (2 * pad + 1))
        crop = canvas[:, top : top + height, left : left + width]
        out.append(crop.flip(2) if mirror < 0.5 else crop)
    return torch.stack(out)


shapes = st.tuples(st.integers(1, 6), st.sampled_from([1, 3]), st.integers(1, 12), st.integers(1, 12))


@settings(deadline=None)
@given(shapes, st.integers(0, 5), st.integers(0, 999))
def test_crop_flip_matches_plain_loop(shape: tuple[int, int, int, int], pad: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, uniform = torch.rand(shape, generator=generator), torch.rand(shape[0], 3, generator=generator)
    assert torch.equal(crop_flip(x, uniform, pad=pad), plain(x, uniform, pad))


@pytest.mark.parametrize("size", [8, 28, 32, 224])
def test_crop_flip_of_image_does_not_depend_on_batch(size: int) -> None:
    x, uniform = torch.rand(5, 3, size, size), torch.rand(5, 3)
    together = crop_flip(x, uniform)
    assert together.shape == x.shape
    assert torch.equal(together[3:4], crop_flip(x[3:4], uniform[3:4]))
    assert torch.equal(together.flip(0), crop_flip(x.flip(0), uniform.flip(0)))


def test_crop_flip_matches_known_values() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    stay, up_left, low_right = 0.5, 0.0, 1 - 2**-24
    assert torch.equal(crop_flip(x, torch.tensor([[stay, stay, 0.5]]), pad=1), x)
    assert torch.equal(crop_flip(x, torch.tensor([[stay, stay, 0.49]]), pad=1), x.flip(3))
    assert crop_flip(x, torch.tensor([[up_left, up_left, 0.5]]), pad=1).flatten().tolist() == [0, 0, 0, 1]
    assert crop_flip(x, torch.tensor([[low_right, low_right, 0.5]]), pad=1).flatten().tolist() == [4, 0, 0, 0]


def test_crop_flip_of_bfloat16_uniforms_stays_inside() -> None:
    uniform = torch.full((1, 3), 0.9999).bfloat16()  # rounds to 1
    assert crop_flip(torch.ones(1, 1, 8, 8), uniform).sum() == 16


def test_crop_flip_offsets_are_uniform() -> None:
    x = torch.zeros(9000, 1, 9, 9)
    x[:, 0, 4, 4] = 1
    uniform = torch.rand(9000, 3, generator=torch.Generator().manual_seed(0))
    where = crop_flip(x, uniform).mean(0)[0]
    assert (where.sum(0) - 1 / 9).abs().max() < 0.015
    assert (where.sum(1) - 1 / 9).abs().max() < 0.015


def test_crop_flip_of_wrong_uniforms_raises() -> None:
    with pytest.raises(InputError, match=r"\(3,\), expected \(2, 3\)"):
        crop_flip(torch.rand(2, 1, 8, 8), torch.rand(3))
    with pytest.raises(InputError, match="padding is -1"):
        crop_flip(torch.rand(2, 1, 8, 8), torch.rand(2, 3), pad=-1)
