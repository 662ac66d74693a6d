"""Serve foolbox: LinfPGD, and the same with its own restarts."""

from __future__ import annotations

import warnings

from benchmarks.peers.baselines import foolbox
from benchmarks.speed.baseline_worker import every_restart, pgd, serve_baseline
from benchmarks.speed.benchmarks import early_stopping

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    serve_baseline("foolbox", "foolbox", pgd(foolbox), every_restart(early_stopping.FOOLBOX, foolbox))
