"""foolbox as a subject of the bench: LinfPGD."""

from __future__ import annotations

import warnings

from ..peers.peers import foolbox
from .crafts import pgd, serve_peer

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    serve_peer("foolbox", "foolbox", pgd(foolbox))
