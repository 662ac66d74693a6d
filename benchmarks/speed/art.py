"""ART as a subject of the bench: ProjectedGradientDescentPyTorch."""

from __future__ import annotations

from ..peers.peers import art
from .crafts import pgd, serve_peer

if __name__ == "__main__":
    serve_peer("ART", "adversarial-robustness-toolbox", pgd(art))
