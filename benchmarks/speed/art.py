"""ART as a subject of the bench: ProjectedGradientDescentPyTorch, and the same with its own restarts."""

from __future__ import annotations

from benchmarks.speed.benchmarks import early_stopping

from ..peers.peers import art
from .crafts import every_restart, pgd, serve_peer

if __name__ == "__main__":
    serve_peer("ART", "adversarial-robustness-toolbox", pgd(art), every_restart(early_stopping.ART, art))
