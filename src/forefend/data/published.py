"""The published sets: the files of each split, their digests and their addresses."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from forefend.checks import InputError


@dataclass(frozen=True)
class PublishedSet:
    """The usual folder of a set, the files of each split, digests of files, and address → digest.

    The digests include those of unpacked .gz files; an address is that of a file or an archive.
    """

    folder: str
    splits: Mapping[str, tuple[str, ...]]
    digests: Mapping[str, str]
    urls: Mapping[str, str]


_IDX_SPLITS = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_MNIST = {
    "train-images-idx3-ubyte.gz": "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
_MNIST_UNPACKED = {
    "train-images-idx3-ubyte": "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_FASHION = {
    "train-images-idx3-ubyte.gz": "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "sha256:a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "sha256:67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
_FASHION_UNPACKED = {
    "train-images-idx3-ubyte": "sha256:c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "sha256:bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "sha256:5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "sha256:0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_SVHN = {
    "train_32x32.mat": "md5:e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "md5:eb5a983be6a315427106f1b164d9cef3",
}
SETS = {
    "mnist": PublishedSet(
        folder="mnist",
        splits=_IDX_SPLITS,
        digests=_MNIST | _MNIST_UNPACKED,
        urls={f"https://ossci-datasets.s3.amazonaws.com/mnist/{file}": digest for file, digest in _MNIST.items()},
    ),
    "fashion-mnist": PublishedSet(
        folder="fashion-mnist",
        splits=_IDX_SPLITS,
        digests=_FASHION | _FASHION_UNPACKED,
        urls={f"{_FASHION_URL}/{file}": digest for file, digest in _FASHION.items()},
    ),
    "cifar-10": PublishedSet(
        folder="cifar-10-batches-py",
        splits={"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)},
        digests={
            "data_batch_1": "sha256:54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
            "data_batch_2": "sha256:766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
            "data_batch_3": "sha256:0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
            "data_batch_4": "sha256:3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
            "data_batch_5": "sha256:d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
            "test_batch": "sha256:f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
        },
        urls={"https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz": "md5:c58f30108f718f92721af3b95e74349a"},
    ),
    "cifar-100": PublishedSet(
        folder="cifar-100-python",
        splits={"train": ("train",), "test": ("test",)},
        digests={"train": "md5:16019d7e3df5f24257cddd939b257f8d", "test": "md5:f0ef6b0ae62326f3e7ffdfab6717acfc"},
        urls={"https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz": "md5:eb9058c3a382ffc7106e4002c42a8d85"},
    ),
    "svhn": PublishedSet(
        folder="svhn",
        splits={"train": ("train_32x32.mat",), "test": ("test_32x32.mat",)},
        digests=_SVHN,
        urls={f"http://ufldl.stanford.edu/housenumbers/{file}": digest for file, digest in _SVHN.items()},
    ),
}


def find_files(name: str, split: str, data_dir: Path) -> list[Path]:
    """Return the verified files of one split, in order, or an empty list where a file is missing.

    The folder of the set below `data_dir` is searched first, then `data_dir` itself.
    """
    spec = SETS[name]
    for folder in (data_dir / spec.folder, data_dir):
        found = [_either(folder / file) for file in spec.splits[split]]
        paths = [path for path in found if path is not None]
        if len(paths) == len(found):
            for path in paths:
                verify(path, spec.digests[path.name])
            return paths
    return []


def _either(path: Path) -> Path | None:
    """Return the file, or the file without .gz, or None where neither exists."""
    candidates = (path, path.with_suffix("")) if path.suffix == ".gz" else (path,)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def verify(path: Path, digest: str) -> None:
    """Refuse a file whose digest, "sha256:…" or "md5:…", differs; digests are cached."""
    algorithm, expected = digest.split(":")
    state = path.stat()
    found = _digest(path.resolve(), state.st_mtime_ns, state.st_size, algorithm)
    if found != expected:
        raise InputError(
            f"{path} is not the published file: its {algorithm} is {found}, expected {expected}; "
            "delete it, and fetch it again with download=True."
        )


@lru_cache(maxsize=256)
def _digest(path: Path, changed: int, size: int, algorithm: str) -> str:
    # `changed` and `size` distinguish a changed file from the cached one.
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
