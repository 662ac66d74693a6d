"""foolbox as a subject of the bench: LinfPGD, and the same with its own restarts."""

from __future__ import annotations

import warnings

from benchmarks.speed.benchmarks import early_stopping

from ..peers.peers import foolbox
from .crafts import every_restart, pgd, serve_peer

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    serve_peer("foolbox", "foolbox", pgd(foolbox), every_restart(early_stopping.FOOLBOX, foolbox))
