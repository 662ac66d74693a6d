"""Asked: what the summary in a folder counts, so that another evaluation does not take its place. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from forefend.checks import InputError
from forefend.runtime.files import provenance, read_json, write_json


@dataclass(frozen=True)
class Manifest:
    """What an evaluation was asked for.

    Args:
        models: by name in tables, the key of each subject's records.
        trials: identities.
        images: how many were judged.
        index: their numbers in the set, as text.
        pixels: a digest of them.
        seed: of the evaluation.
    """

    models: Mapping[str, str]
    trials: Sequence[str]
    images: int
    index: str
    pixels: str
    seed: int

    def check(self, folder: Path, summary: str = "summary.json") -> None:
        """Refuse to replace a summary by one that would not hold all of it: more of the same may be asked for.

        Args:
            folder: where it would go.
            summary: the name of the file.

        Raises:
            InputError: the folder's summary counts other networks, trials or images, or has another seed.
        """
        if not (folder / summary).exists() or not (folder / "evaluation.json").exists():
            return
        held = read_json(folder / "evaluation.json")
        try:
            old = Manifest(**{key: value for key, value in held.items() if key != "about"})
            lost = next(self._loses(old), None)
        except (TypeError, AttributeError):
            raise InputError(f"{folder}/evaluation.json is not an evaluation's: choose another --out.") from None
        if lost:
            raise InputError(
                f"{folder} holds the {summary} of another evaluation ({lost}), which this one would replace: choose "
                "another --out, or ask for the same and more."
            )

    def keep(self, folder: Path) -> None:
        """Write `evaluation.json` into the folder, beside the summary that it tells of."""
        write_json(folder / "evaluation.json", {**asdict(self), "about": provenance()})

    def _loses(self, old: Manifest) -> Iterator[str]:
        """What the old summary holds and the new one would not."""
        keys = set(self.models.values())  # names may change: of two of one name, each gets a fingerprint
        for name in (name for name, key in old.models.items() if key not in keys):
            if name in self.models:
                yield f"its {name} was another network, or judged on another set"
            else:
                yield f"it judged {name} too"
        yield from (f"it attacked with {trial} too" for trial in old.trials if trial not in self.trials)
        if old.images > self.images:
            yield f"it judged {old.images} images, not {self.images}"
        if not set(old.index.split()) <= set(self.index.split()) or (
            old.index == self.index and old.pixels != self.pixels
        ):
            yield "it judged other images"
        if old.seed != self.seed:
            yield f"its seed was {old.seed}, not {self.seed}"
