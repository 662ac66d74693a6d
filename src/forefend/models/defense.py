"""A trained preprocessor with its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models import defense_readme, preprocessors, release
from forefend.models.card_file import check_weights, read_card_file, read_weights, write_card
from forefend.models.classifiers import Normalized
from forefend.models.defense_readme import Measured
from forefend.models.fingerprint import fingerprint
from forefend.models.guide import Guide
from forefend.models.saved_identity import identity_of
from forefend.models.signature import verify


@dataclass(frozen=True)
class DefenseCard:
    """The description of a defense, saved as `defense.json` beside the weights.

    Args:
        architecture: name of the preprocessor's architecture.
        settings: arguments that rebuild the architecture.
        threat: the threat model of training, e.g. `Linf:8/255`.
        recipe: name of the recipe that trained it.
        data: name of the training data.
        guides: name and fingerprint of each guide, by which seen classifiers are recognized.
        ema: decay of the average over the training steps; None for the last weights.
        kept: the epoch whose weights these are, and the accuracies on held-out training images that chose it; empty
            for the last epoch, or where the recipe chooses one by a measure of its own.
    """

    architecture: str
    settings: dict[str, Any] = field(default_factory=dict)
    threat: str = ""
    recipe: str = ""
    data: str = ""
    guides: list[dict[str, str]] = field(default_factory=list)
    ema: float | None = None
    kept: dict[str, Any] = field(default_factory=dict)


class Defense(nn.Module):
    """A preprocessor with its card: images `(B, C, H, W)` in [0, 1] to images of the same shape.

    Args:
        preprocessor: the network.
        card: its description.
        verified: False for a defense that was loaded from a card without digests, as older versions wrote it.
    """

    def __init__(self, preprocessor: nn.Module, card: DefenseCard, verified: bool = True) -> None:
        super().__init__()
        self.verified = verified
        self.preprocessor = preprocessor
        self.card = card
        self.training = preprocessor.training

    def forward(self, x: Tensor) -> Tensor:
        """Return the images for a classifier, of the shape of `x`."""
        return self.preprocessor(x)

    def has_seen(self, classifier: nn.Module) -> bool:
        """Return whether the classifier was one of its guides, by fingerprint.

        A `Normalized` with mean 0 and std 1 counts as the classifier inside.
        """
        network = classifier.classifier if isinstance(classifier, Guide) else classifier
        own = {fingerprint(network)}
        if isinstance(network, Normalized) and network.is_identity:
            own.add(fingerprint(network.network))
        return not own.isdisjoint(guide["fingerprint"] for guide in self.card.guides)

    def identity(self) -> str:
        """Return a digest of weights and architecture, by which evaluations name the defense that they measured."""
        return identity_of(fingerprint(self.preprocessor), self.card.architecture, self.card.settings)

    def save(self, folder: str | Path) -> None:
        """Write `weights.safetensors` and `defense.json` into `folder`.

        Raises:
            InputError: the card does not rebuild the preprocessor.
        """
        if not self.card.architecture:
            kind = type(self.preprocessor).__name__
            raise InputError(f"{kind} is not a preprocessor of forefend and cannot be saved: save its state_dict().")
        self._check_card()
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self.preprocessor.state_dict().items()}
        write_card(Path(folder) / "defense.json", asdict(self.card), save_tensors(tensors, metadata={"format": "pt"}))

    def save_pretrained(self, folder: str | Path, *, measured: Sequence[Measured] = (), license: str = "") -> None:  # noqa: A002
        """Write a folder to give away: weights, cards, `README.md`, and `release.json` with the digest of every file.

        Args:
            folder: a new folder, or one that this method wrote; no other file of it is touched.
            measured: what `forefend.measured` read from evaluations; without it the model card states no accuracy.
            license: SPDX name of the license of the weights, such as `apache-2.0`; empty for none.

        Raises:
            InputError: the card does not rebuild the preprocessor, a number is of another defense, or the folder holds
                a run.
        """
        folder = Path(folder)
        own = self.identity()
        if other := next((one for one in measured if one.defense != own), None):
            raise InputError(f"{other.source} measured another defense than this one: evaluate this defense.")
        release.check_free(folder)
        self.save(folder)
        release.write_release(folder, defense_readme.files_of(asdict(self.card), measured, license), license)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        public_key: str | Path | None = None,
    ) -> Defense:
        """Load a folder that `save_pretrained` wrote, or fetch one from huggingface.co, in eval mode.

        Args:
            name: a folder, or a repository such as `owner/name`.
            revision: branch, tag or commit of the repository.
            token: an access token, for a private repository.
            local_files_only: use the local cache alone.
            public_key: as for `load`.

        Raises:
            InputError: `load` refuses the folder, or the repository cannot be fetched.
        """
        if Path(name).is_dir():
            return load(name, public_key=public_key)
        options = {key: value for key, value in (("revision", revision), ("token", token)) if value is not None}
        return load(release.fetched(str(name), not local_files_only, **options), public_key=public_key)

    def push_to_hub(
        self,
        repository: str,
        *,
        measured: Sequence[Measured] = (),
        license: str = "",  # noqa: A002
        private: bool | None = None,
        token: str | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes to huggingface.co, and return the address of the commit.

        Args:
            repository: such as `owner/name`; it is created if it does not exist.
            measured: as for `save_pretrained`.
            license: likewise.
            private: whether a new repository is private.
            token: an access token with the right to write.

        Raises:
            InputError: `save_pretrained` refuses, or the upload fails.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, measured=measured, license=license)
            return release.upload(Path(folder), repository, private, token)

    def _check_card(self) -> None:
        card, shapes = self.card, {name: tensor.shape for name, tensor in self.preprocessor.state_dict().items()}
        try:
            with torch.device("meta"):
                rebuilt = preprocessors.build(card.architecture, **card.settings)
            fits = shapes == {name: tensor.shape for name, tensor in rebuilt.state_dict().items()}
        except TypeError:  # a setting is missing
            fits = False
        if not fits:
            raise InputError(
                f"The card's architecture {card.architecture!r} with the settings {card.settings} is not the network "
                "to save: give DefenseCard(architecture, settings=preprocessor.settings)."
            )


def load(folder: str | Path, *, download: bool = False, public_key: str | Path | None = None) -> Defense:
    """Load the defense of a run folder or of a folder written by `Defense.save`, in eval mode.

    Args:
        folder: the folder, or `hf:OWNER/NAME` for a repository of huggingface.co.
        download: fetch a repository that is not in the local cache.
        public_key: a file with the key that must have signed the folder; by default none is needed.

    Raises:
        InputError: the folder holds no defense, its card was edited, its weights are damaged, NaN, all zero, or
            other weights, a file differs from its digest in `release.json`, or the key did not sign the folder.
    """
    if not isinstance(folder, str | PathLike):
        raise InputError(f"The folder of the defense is {folder!r}, expected a path: give that of a training run.")
    if str(folder).startswith("hf:"):
        folder = release.fetched(str(folder).removeprefix("hf:"), download)
    folder = Path(folder)
    if public_key is not None:
        verify(folder, public_key)
    release.check_release(folder)
    if not (folder / "defense.json").exists():
        raise InputError(f"{folder} holds no defense.json: give a folder that forefend train or Defense.save wrote.")
    try:
        content, sha256 = read_card_file(folder / "defense.json")
        card = DefenseCard(**content)
        preprocessor = preprocessors.build(card.architecture, **card.settings)
    except TypeError as error:
        raise InputError(f"{folder}/defense.json is no card of a defense ({error}): save the defense again.") from None
    try:
        tensors = load_tensors(read_weights(folder / "weights.safetensors", sha256))
        for name, tensor in preprocessor.state_dict().items():
            if name in tensors and tensors[name].is_floating_point() != tensor.is_floating_point():
                raise RuntimeError(f"{name} is {tensors[name].dtype}, not {tensor.dtype}")
        preprocessor.load_state_dict(tensors)
    except FileNotFoundError:
        raise InputError(f"{folder} has no weights.safetensors beside defense.json: copy the whole folder.") from None
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder}/weights.safetensors does not fit {card.architecture} ({reason}).") from None
    check_weights(preprocessor, folder / "weights.safetensors")
    return Defense(preprocessor, card, verified=sha256 is not None).eval()
