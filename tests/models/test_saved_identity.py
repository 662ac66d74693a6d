"""The identity of the defense in a folder is that of the loaded defense, and is found without torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as save_tensors

from forefend.checks import InputError
from forefend.models import preprocessors
from forefend.models.card_file import write_card
from forefend.models.defense import Defense, DefenseCard, load
from forefend.models.fingerprint import fingerprint_of
from forefend.models.saved_identity import identity_in, identity_of, verified_identity_in


@pytest.fixture
def defense() -> Defense:
    torch.manual_seed(0)
    network = preprocessors.build("dncnn", channels=1, depth=3, width=4)
    return Defense(network, DefenseCard("dncnn", {"channels": 1, "depth": 3, "width": 4})).eval()


def test_identity_of_a_folder_is_that_of_its_defense(defense: Defense, tmp_path: Path) -> None:
    defense.save(tmp_path)
    assert identity_in(tmp_path) == verified_identity_in(tmp_path) == defense.identity()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_identity_of_narrow_and_wide_floats_is_that_of_the_loaded_defense(
    defense: Defense, tmp_path: Path, dtype: torch.dtype
) -> None:
    tensors = {
        name: one.to(dtype) if one.is_floating_point() else one
        for name, one in defense.preprocessor.state_dict().items()
    }
    write_card(tmp_path / "defense.json", asdict(defense.card), save_tensors(tensors))
    assert identity_in(tmp_path) == load(tmp_path).identity()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool])
def test_identity_of_integers_and_empty_tensors_is_as_by_torch(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"b": torch.arange(6).view(2, 3).to(dtype), "a": torch.empty(0, 4), "c": torch.tensor(1.5)}
    write_card(tmp_path / "defense.json", {"architecture": "x", "settings": {}}, save_tensors(tensors))
    assert identity_in(tmp_path) == identity_of(fingerprint_of(tensors.items()), "x", {})


def test_folder_that_is_damaged_has_no_identity(defense: Defense, tmp_path: Path) -> None:
    write_card(tmp_path / "defense.json", asdict(defense.card), b"no tensors")
    with pytest.raises(InputError, match=r"weights\.safetensors is damaged"):
        identity_in(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no weights\.safetensors"):
        identity_in(tmp_path)


def test_weights_of_another_card_have_an_identity_that_is_not_verified(defense: Defense, tmp_path: Path) -> None:
    defense.save(tmp_path)
    other = {name: one + 1 for name, one in defense.preprocessor.state_dict().items()}
    (tmp_path / "weights.safetensors").write_bytes(save_tensors(other))
    assert identity_in(tmp_path) == identity_of(fingerprint_of(other.items()), "dncnn", defense.card.settings)
    with pytest.raises(InputError, match="is damaged, or holds other weights"):
        verified_identity_in(tmp_path)


def test_torch_is_not_loaded() -> None:
    code = "import sys, forefend.models.saved_identity; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
