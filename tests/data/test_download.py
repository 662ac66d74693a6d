from __future__ import annotations

import functools
import hashlib
import io
import pickle
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

from forefend.checks import InputError
from forefend.data import load, published
from forefend.data.download import download
from forefend.data.published import PublishedSet

pytest.importorskip("pooch")


class Quiet(SimpleHTTPRequestHandler):
    requested: list[str]

    def log_message(self, *_: object) -> None:
        self.requested.append(self.path)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """Serve a folder on this machine; return folder and address."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    Quiet.requested = []
    served = tmp_path / "site"
    served.mkdir()
    with HTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(served))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def encode(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def batch(labels: list[int]) -> bytes:
    return pickle.dumps({"data": np.zeros((len(labels), 3072), np.uint8), "labels": labels}, protocol=4)


def publish_idx(site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    served, address = site
    pixels, labels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3), np.array([3, 4], np.uint8)
    files = {"images-of-train": encode(pixels), "labels-of-train": encode(labels)}
    for name, content in files.items():
        (served / name).write_bytes(content)
    digests = {name: sha256(content) for name, content in files.items()}
    urls = {f"{address}/{name}": digest for name, digest in digests.items()}
    monkeypatch.setitem(published.SETS, "mnist", PublishedSet("mnist", {"train": tuple(files)}, digests, urls))
    return files


def publish_cifar(site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, *, test: bytes | None = None) -> None:
    served, address = site
    files = {"data_batch_1": batch([1, 2, 3]), "test_batch": batch([4, 5, 6])}
    digests = {name: sha256(content) for name, content in files.items()}
    with tarfile.open(served / "c.tar.gz", "w:gz") as archive:
        for name, content in {**files, "test_batch": test or files["test_batch"], "../../readme.html": b"?"}.items():
            member = tarfile.TarInfo(f"cifar/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    splits = {"train": ("data_batch_1",), "test": ("test_batch",)}
    urls = {f"{address}/c.tar.gz": sha256((served / "c.tar.gz").read_bytes())}
    monkeypatch.setitem(published.SETS, "cifar-10", PublishedSet("cifar", splits, digests, urls))


def test_download_happens_on_request_and_once(
    site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_idx(site, monkeypatch)
    home = tmp_path / "home"
    with pytest.raises(InputError, match="images-of-train and labels-of-train of mnist are neither"):
        load("mnist", "train", home)
    assert Quiet.requested == []
    assert load("mnist", "train", home, download=True).labels.tolist() == [3, 4]
    assert load("mnist", "train", home, download=True).labels.tolist() == [3, 4]
    assert download("mnist", home) == home / "mnist"
    assert sorted(Quiet.requested) == ["/images-of-train", "/labels-of-train"]
    assert sorted(path.name for path in (home / "mnist").iterdir()) == ["images-of-train", "labels-of-train"]


def test_download_keeps_only_files_of_splits(
    site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_cifar(site, monkeypatch)
    home = tmp_path / "home"
    assert load("cifar-10", "test", home, download=True).labels.tolist() == [4, 5, 6]
    assert sorted(path.name for path in home.rglob("*")) == ["cifar", "data_batch_1", "test_batch"]
    assert not list(tmp_path.rglob("readme.html"))
    download("cifar-10", home)
    assert Quiet.requested == ["/c.tar.gz"]


def test_download_of_changed_member_keeps_no_file(
    site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_cifar(site, monkeypatch, test=b"changed")
    with pytest.raises(InputError, match="is not the published file"):
        download("cifar-10", tmp_path / "home")
    assert not (tmp_path / "home/cifar/test_batch").exists()


def test_download_of_changed_file_keeps_no_file(
    site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_idx(site, monkeypatch)
    (site[0] / "images-of-train").write_bytes(b"changed on the way")
    with pytest.raises(InputError, match="did not send the published file"):
        download("mnist", tmp_path / "home")
    assert list((tmp_path / "home/mnist").iterdir()) == []


def test_download_replaces_damaged_file(
    site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = publish_idx(site, monkeypatch)
    images = download("mnist", tmp_path) / "images-of-train"
    images.write_bytes(b"damaged")
    download("mnist", tmp_path)
    assert images.read_bytes() == files["images-of-train"]
    assert Quiet.requested.count("/images-of-train") == 2
    assert Quiet.requested.count("/labels-of-train") == 1


def test_download_from_unreachable_publisher_raises(
    site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_idx(site, monkeypatch)
    (site[0] / "images-of-train").unlink()
    with pytest.raises(InputError, match=r"/images-of-train could not be downloaded \(HTTPError\): check the network"):
        download("mnist", tmp_path / "home")


def test_download_unknown_set_or_without_pooch_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no set to download called 'imagenet'"):
        download("imagenet", tmp_path)
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(InputError, match=r"needs pooch: pip install 'forefend\[data\]'"):
        download("svhn", tmp_path)
