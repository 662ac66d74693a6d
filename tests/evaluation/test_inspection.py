from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import done, refused
from torch import Tensor, nn

import forefend as ff
from forefend.checks import InputError
from forefend.evaluation.inspection import Inspection, inspect
from forefend.models.classifiers.resized import Resized
from forefend.models.fingerprint import state_digest

IMAGES = (torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2)


class Brightness(nn.Module):
    """Two classes, bright and dark; the options break one property each."""

    def __init__(self, kind: str = "") -> None:
        super().__init__()
        self.kind = kind
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach() if self.kind == "cut" else x
        x = x + len(x) / 16 if self.kind == "batch" else x
        x = x + torch.rand_like(x) if self.kind == "random" else x
        logit = self.scale * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([-logit, logit], 1)


def test_inspection_of_a_known_classifier_says_what_is_known() -> None:
    x = torch.cat([torch.full((30, 1, 8, 8), 0.25), torch.full((10, 1, 8, 8), 0.75)])
    y = torch.cat([torch.zeros(30), torch.ones(10)]).long()
    y[:4] = 1  # four wrong labels
    network = ff.classifiers.Normalized(Brightness(), 0.0, 1.0)
    before = state_digest(network)
    found = inspect(network, (x, y), name="mine")
    assert (found.name, found.shape, found.classes, found.images) == ("mine", (1, 8, 8), 2, 40)
    assert found.clean is not None
    assert found.clean[0] == 0.9
    assert found.clean[1:] == pytest.approx((0.7695, 0.9604), abs=1e-3)  # Wilson's interval of 36 of 40
    assert (found.gradient, found.deterministic, found.batch_independent) == (True, True, True)
    assert (found.dtype, found.parameters, found.fingerprint) == ("float32", 1, ff.fingerprint(network))
    assert found.preprocessing == ("no normalization",)
    assert set(found.latency) == {"1", "32"}
    assert min(found.latency.values()) > 0
    assert state_digest(network) == before
    assert "90.0 [76.9–96.0] % of 40 images" in str(found)


@pytest.mark.parametrize(
    ("kind", "field", "words"),
    [
        ("cut", "gradient", "No gradient reaches the images: use the suite black-box, or attacks through"),
        ("random", "deterministic", "use the suite randomized"),
        ("batch", "batch_independent", "Its logits depend on the batch"),
    ],
)
def test_inspection_tells_what_is_wrong(kind: str, field: str, words: str) -> None:
    found, sound = inspect(Brightness(kind), shape=(1, 8, 8)), inspect(Brightness(), shape=(1, 8, 8))
    assert not getattr(found, field)
    assert getattr(sound, field)
    assert any(words in note for note in found.notes)
    assert not any(words in note for note in sound.notes)


def test_inspection_of_a_black_box_says_so() -> None:
    named = ff.classifiers.load(lambda x: (x.mean((1, 2, 3)) > 0.5).astype(int), outputs="labels", classes=2)
    found = ff.inspect(named, IMAGES)
    assert (found.gradient, found.parameters, found.black_box) == (False, 0, "<lambda>")
    assert "Only its answers are known" in str(found)


def test_refusal_of_a_black_box_is_not_taken_for_a_wrong_size() -> None:
    box = ff.classifiers.load(lambda x: np.full((len(x), 2), 0.5), classes=2)
    with pytest.raises(ff.InputError, match=r"^<lambda> returns rows that sum to 1, expected logits"):
        ff.inspect(box, IMAGES)


def test_inspection_shows_size_and_crop_inside() -> None:
    network = ff.classifiers.build("resnet20", channels=1, classes=2, size=16)
    inside = ff.classifiers.Normalized(network, [0.25], [0.5])
    found = inspect(Resized(inside, 20, (16, 16), "bicubic"), IMAGES)
    assert found.preprocessing == (
        "resizes the shorter side to 20 (bicubic)",
        "cuts the center 16 × 16",
        "subtracts the mean 0.25, divides by 0.5",
    )
    assert found.taps["stages"] == ("stages.0", "stages.1", "stages.2")
    assert any("read pictures at size 20" in note for note in found.notes)
    guide = ff.Guide(Resized(inside, 20, (16, 16)))
    assert list(guide.read(IMAGES[0][:2], found.taps["stages"])[1]) == list(found.taps["stages"])


def test_inspection_without_a_shape_asks_for_one() -> None:
    with pytest.raises(InputError, match="does not say for which images it is: give some, or their channels and size"):
        inspect(Brightness())
    with pytest.raises(InputError, match=r"was built for \(B, 1, 8, 8\)"):
        inspect(
            ff.classifiers.build("mlp", channels=1, classes=2, size=8),
            (torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])),
        )


def test_inspect_command_prints_json(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "import torch\n\ndef make():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
    )
    line = f"inspect {tmp_path}/nets.py:make --data digits --images 50 --mean 0 --std 1"
    found: dict[str, Any] = json.loads(done(f"{line} --json"))
    assert (found["format"], found["classes"], found["images"]) == (1, 10, 50)
    assert {*found} == {"format", *Inspection.__dataclass_fields__}
    assert "--mean 0 and --std 1 for none" in refused(f"inspect {tmp_path}/nets.py:make --data digits")
    assert "give some, or their channels and size" in refused(f"inspect {tmp_path}/nets.py:make --mean 0 --std 1")
