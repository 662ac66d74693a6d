"""Serve ART: ProjectedGradientDescentPyTorch, and the same with its own restarts."""

from __future__ import annotations

from benchmarks.peers.baselines import art
from benchmarks.speed.baseline_worker import every_restart, pgd, serve_baseline
from benchmarks.speed.benchmarks import early_stopping

if __name__ == "__main__":
    serve_baseline("ART", "adversarial-robustness-toolbox", pgd(art), every_restart(early_stopping.ART, art))
