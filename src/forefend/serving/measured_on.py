"""Which accuracies were measured on exactly the classifier and the defense that are served."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from forefend.checks import InputError
from forefend.evaluation.identification import Examined, KnownModels, examine_on_noise, network_digest
from forefend.models.defended import Defended
from forefend.models.freezing import frozen, gradients_enabled
from forefend.report.measured import evaluations_in
from forefend.runtime.precision import full_float32
from forefend.serving.pipeline import Pipeline

SERVED, OTHER, UNIDENTIFIED = "served", "other", "unidentified"


@dataclass(frozen=True)
class ServedPipeline:
    """What is served, as evaluations identify it: by weights, architecture and answers.

    Args:
        pipeline: what is served.
        known: what the measured models answered.
    """

    pipeline: Pipeline
    known: KnownModels

    @cached_property
    def network(self) -> Defended:
        """The classifier behind its defense."""
        return frozen(Defended(self.pipeline.defense, self.pipeline.network))

    @cached_property
    def digest(self) -> str:
        """The digests of its weights and of its architecture, with a colon between."""
        return network_digest(self.network)

    @cached_property
    def examined(self) -> Examined:
        """What it answers for random images; it is asked once, and only if `compare` needs it."""
        with full_float32(), gradients_enabled():
            return examine_on_noise(self.network, self.pipeline.shape, self.pipeline.name)

    def compare(self, identity: str) -> str:
        """Return `served` if an evaluation measured exactly this, `other`, or `unidentified` where nothing tells.

        Args:
            identity: weights, architecture and answers of what was measured, with colons between; empty if unknown.

        Raises:
            InputError: what is served gives an image other logits beside other images.
        """
        weights, _, more = identity.partition(":")
        own_weights, _, own_architecture = self.digest.partition(":")
        if weights != own_weights:
            return OTHER if weights else UNIDENTIFIED
        if more.partition(":")[0] != own_architecture:
            return UNIDENTIFIED  # equal weights in a network that is built or described otherwise
        agrees = self.known.agrees(self.examined, identity)
        return UNIDENTIFIED if agrees is None else SERVED if agrees else OTHER


def known_in(folder: Path | None) -> KnownModels:
    """Return what the models answered that were measured in a run, or of which a released folder tells."""
    try:
        return KnownModels([folder, *evaluations_in(folder)] if folder else [])
    except InputError as error:
        print(f"the classifiers that were measured cannot be identified: {error}", flush=True)
        return KnownModels()
