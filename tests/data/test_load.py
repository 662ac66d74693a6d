from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

import pytest

from forefend.checks import InputError
from forefend.data import load, published, registry

REAL = pytest.mark.skipif(
    "FOREFEND_DATA" not in os.environ, reason="FOREFEND_DATA does not say where the real files lie"
)


def test_load_unknown_name_suggests_nearest() -> None:
    with pytest.raises(InputError, match="no data set called 'cifar10': did you mean 'cifar-10'"):
        load("cifar10", "test")
    with pytest.raises(InputError, match="no data set called ''"):
        load("", "test")
    for path in ("no/such/folder", "pets.zip"):
        with pytest.raises(InputError, match=f"There is no file or folder of images {path}: check the path"):
            load(path, "test")


def test_load_with_wrong_split_or_size_raises() -> None:
    with pytest.raises(InputError, match="'val', expected 'train' or 'test'"):
        load("digits", "val")
    with pytest.raises(InputError, match="only pictures need it"):
        load("digits", "test", size=32)


@pytest.mark.parametrize("name", list(published.SETS))
def test_load_missing_files_names_folders_and_options(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        load(name, "train", tmp_path)
    sentence = str(refused.value)
    assert f"{tmp_path / published.SETS[name].folder} nor in {tmp_path}" in sentence
    assert "download=True" in sentence
    assert "data_dir or FOREFEND_DATA" in sentence
    assert sentence.count(". ") == 0


def test_load_reads_argument_then_environment_then_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREFEND_DATA", str(tmp_path / "there"))
    with pytest.raises(InputError, match="/there/mnist"):
        load("mnist", "test")
    with pytest.raises(InputError, match="/elsewhere/mnist"):
        load("mnist", "test", tmp_path / "elsewhere")
    monkeypatch.delenv("FOREFEND_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"{tmp_path}/\.data/mnist"):
        load("mnist", "test")


def test_load_changed_file_raises(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(b"changed")
    expected = published.SETS["cifar-10"].digests["test_batch"].removeprefix("sha256:")
    found = hashlib.sha256(b"changed").hexdigest()
    with pytest.raises(InputError, match=f"test_batch is not the published file: its sha256 is {found}, .*{expected}"):
        load("cifar-10", "test", tmp_path)


def test_digest_is_cached_until_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    before = published._digest.cache_info().misses
    for _ in range(3):
        published.verify(path, f"md5:{hashlib.md5(b'one').hexdigest()}")
    assert published._digest.cache_info().misses == before + 1
    path.write_bytes(b"three")
    with pytest.raises(InputError, match="its md5 is"):
        published.verify(path, f"md5:{hashlib.md5(b'one').hexdigest()}")


def test_sets_have_digest_and_url_for_every_file() -> None:
    assert set(registry.READERS) == set(published.SETS)
    for spec in published.SETS.values():
        for file in [file for split in spec.splits.values() for file in split]:
            assert file in spec.digests
            fetched = {url.rsplit("/", 1)[-1] for url in spec.urls}
            assert file in fetched or all(name.endswith(".tar.gz") for name in fetched)
        for digest in [*spec.digests.values(), *spec.urls.values()]:
            algorithm, value = digest.split(":")
            assert len(value) == 2 * hashlib.new(algorithm).digest_size


@REAL
def test_find_files_searches_own_folder_then_data_dir() -> None:
    home = Path(os.environ["FOREFEND_DATA"])
    assert load("cifar-10", "test", home / "cifar-10-batches-py").index[-1] == 9999
    with pytest.raises(InputError, match="not the published file"):
        load("mnist", "test", home / "fashion-mnist")


@REAL
def test_find_files_accepts_unpacked_files(tmp_path: Path) -> None:
    import gzip

    for file in published.SETS["mnist"].splits["test"]:
        packed = Path(os.environ["FOREFEND_DATA"]) / "mnist" / file
        (tmp_path / file.removesuffix(".gz")).write_bytes(gzip.decompress(packed.read_bytes()))
    assert len(load("mnist", "test", tmp_path)) == 10_000


@REAL
def test_load_file_with_changed_byte_raises(tmp_path: Path) -> None:
    for file in published.SETS["fashion-mnist"].splits["test"]:
        shutil.copy(Path(os.environ["FOREFEND_DATA"]) / "fashion-mnist" / file, tmp_path)
    assert len(load("fashion-mnist", "test", tmp_path)) == 10_000
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(labels.read_bytes())
    content[4] ^= 1  # the time stamp in the header: decompresses all the same
    labels.write_bytes(content)
    with pytest.raises(InputError, match=r"labels-idx1-ubyte\.gz is not the published file"):
        load("fashion-mnist", "test", tmp_path)


@REAL
def test_load_is_fast() -> None:
    started = time.perf_counter()
    load("cifar-10", "test")
    assert time.perf_counter() - started < 3  # 0.1 s on an idle core
