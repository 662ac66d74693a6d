"""A defense folder is signed, checked when it is loaded, and refused where it or the key is another."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.command_line import done, refused

from forefend.checks import InputError
from forefend.models import preprocessors
from forefend.models.defense import Defense, DefenseCard, load
from forefend.models.signature import SIGNATURE, sign, verify

pytest.importorskip("model_signing.signing", reason="the extra sign is not installed")
serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
PEM = serialization.Encoding.PEM


def write_keys(folder: Path, name: str, curve: object, password: str | None = None) -> tuple[Path, Path]:
    """Write a private and a public key."""
    key = ec.generate_private_key(curve)
    how = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, how))
    public.write_bytes(key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path, "key", ec.SECP256R1())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A defense to give away."""
    torch.manual_seed(0)
    network = preprocessors.build("narrow-unet", channels=1, widths=[4, 8], depths=[1, 1])
    card = DefenseCard("narrow-unet", dict(network.settings), "Linf:0.1")  # type: ignore[arg-type]
    Defense(network, card).eval().save_pretrained(tmp_path / "out")
    return tmp_path / "out"


def test_a_signed_folder_is_loaded_where_it_was_copied(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    assert sign(folder, keys[0]) == folder / SIGNATURE
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert load(tmp_path / "elsewhere", public_key=keys[1]).identity() == load(folder).identity()
    assert Defense.from_pretrained(folder, public_key=keys[1]).identity() == load(folder).identity()


def test_the_signature_is_that_of_openssf(folder: Path, keys: tuple[Path, Path]) -> None:
    """Its own tool accepts the folder."""
    sign(folder, keys[0])
    options = ["--signature", folder / SIGNATURE, "--ignore-paths", folder / SIGNATURE, "--public_key", keys[1]]
    command = [sys.executable, "-m", "model_signing", "verify", "key", folder, *options]
    assert "Verification succeeded" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_links_to_the_files_are_verified_as_the_cache_of_the_hub_holds_them(
    folder: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    sign(folder, keys[0])
    (tmp_path / "snapshot").mkdir()
    for path in folder.iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    verify(tmp_path / "snapshot", keys[1])


def replaced(folder: Path) -> None:
    """Other weights, with a release.json that fits them."""
    torch.manual_seed(1)
    network = preprocessors.build("narrow-unet", channels=1, widths=[4, 8], depths=[1, 1])
    signature = (folder / SIGNATURE).read_bytes()
    Defense(network, load(folder).card).eval().save_pretrained(folder)
    (folder / SIGNATURE).write_bytes(signature)
    assert load(folder)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights": (replaced, "release.json, weights.safetensors"),
    "card": (lambda folder: (folder / "README.md").write_text("99 %"), "README.md"),
    "added": (lambda folder: (folder / "more.json").write_text("{}"), "more.json"),
    "removed": (lambda folder: (folder / "README.md").unlink(), "README.md"),
}


@pytest.mark.parametrize(("change", "names"), CHANGES.values(), ids=CHANGES)
def test_a_changed_folder_is_refused(
    folder: Path, keys: tuple[Path, Path], change: Callable[[Path], object], names: str
) -> None:
    sign(folder, keys[0])
    change(folder)
    with pytest.raises(InputError, match=rf"out is not what was signed \(.*({names}).* changed, added or missing\)"):
        load(folder, public_key=keys[1])


def test_another_key_and_a_damaged_signature_are_refused(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    sign(folder, keys[0])
    _, other = write_keys(tmp_path, "other", ec.SECP256R1())
    with pytest.raises(InputError, match=r"out was not signed with the key of .*other\.pub"):
        load(folder, public_key=other)
    signature = folder / SIGNATURE
    whole = json.loads(signature.read_text())
    whole["verificationMaterial"]["publicKey"]["hint"] = ""  # a key that is not named is tried all the same
    for text in ("", "{}", signature.read_text()[:300], json.dumps(whole)):
        signature.write_text(text)
        with pytest.raises(InputError, match=r"was not signed with the key of .*, or its model\.sig is damaged"):
            load(folder, public_key=other)


def test_a_folder_without_a_signature_is_refused_where_a_key_is_given(folder: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match=r"out has no model\.sig"):
        load(folder, public_key=keys[1])
    sign(folder, keys[0])
    load(folder).save_pretrained(folder)  # what was signed is gone
    assert not (folder / SIGNATURE).exists()


def test_what_is_no_release_is_not_signed(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes\.txt, which release\.json does not list"):
        sign(folder, keys[0])
    (folder / "notes.txt").unlink()
    (folder / "README.md").write_text("99 %")
    with pytest.raises(InputError, match=r"README\.md is not the file that was released"):
        sign(folder, keys[0])
    with pytest.raises(InputError, match=r"has no release\.json"):
        sign(tmp_path, keys[0])
    assert not (folder / SIGNATURE).exists()


def test_keys_that_cannot_be_used_are_refused(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    secret, public = write_keys(tmp_path, "secret", ec.SECP384R1(), password="open")
    odd, _ = write_keys(tmp_path, "odd", ec.SECP256K1())
    for path in (tmp_path / "nothing.pem", keys[1], secret, odd):
        with pytest.raises(InputError, match=rf"{path.name} is no private key that can be used \(.*P-256"):
            sign(folder, path)
    with pytest.raises(InputError, match=r"Incorrect password"):
        sign(folder, secret, "wrong")
    sign(folder, secret, "open")
    verify(folder, public)
    with pytest.raises(InputError, match=r"key\.pem is no public key that can be used"):
        verify(folder, keys[0])


def test_without_the_library_the_extra_is_named(
    folder: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    for call in (lambda: sign(folder, keys[0]), lambda: load(folder, public_key=keys[1])):
        with pytest.raises(InputError, match=r"needs model_signing: pip install 'forefend\[sign\]'"):
            call()


def test_sign_and_verify_on_the_command_line(
    folder: Path, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = write_keys(tmp_path, "secret", ec.SECP256R1(), password="open")
    monkeypatch.setattr("forefend.cli.sign.getpass", lambda prompt: "open")
    assert "the signature of the folder's files" in done(f"sign {folder} --key {private}")
    assert "and unchanged since" in done(f"verify {folder} --key {public}")
    assert "was not signed with the key of" in refused(f"verify {folder} --key {keys[1]}")
    assert "nowhere.pem cannot be read" in refused(f"sign {folder} --key nowhere.pem")
    assert "key" in refused(f"sign {folder}")
