"""Update the tables of speed in documents, from the `bench.json` files in results/bench.

usage: PYTHONPATH=src:. python -m benchmarks.speed_table [--check]

The block `<!-- speed targets -->` … `<!-- end -->` contains the figures that have a target, and the machine. The block
`<!-- speed all -->` contains all figures, benchmark by benchmark. With --check nothing is written; the exit status is 1
if a table differs from its file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.pages import renew
from benchmarks.speed import table
from benchmarks.speed.results import Figure
from forefend.runtime import files
from forefend.runtime.formatting import markdown_table

BENCH = Path("results/bench")
DOCUMENTS = {  # and the file with the figures of each
    BENCH / "README.md": BENCH / "bench.json",
    BENCH / "without-bfloat16/README.md": BENCH / "without-bfloat16/bench.json",
}


def main() -> int:
    """Update or check, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    current = [renew(page, blocks(files.read_json(path)), check=given.check) for page, path in DOCUMENTS.items()]
    return int(given.check and not all(current))


def blocks(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables by name.

    Args:
        found: the content of a `bench.json`.
    """
    return {"speed targets": "\n".join(_targets(found)), "speed all": "\n".join(_all(found))}


def _figures(found: Mapping[str, Any]) -> list[Figure]:
    return [Figure.from_json(fields) for fields in found["figures"]]


def _targets(found: Mapping[str, Any]) -> Iterator[str]:
    yield table.markdown([figure for figure in _figures(found) if figure.target is not None])
    yield machine(found)


def _all(found: Mapping[str, Any]) -> Iterator[str]:
    for benchmark in found["settings"]["questions"]:
        own = [figure for figure in _figures(found) if figure.benchmark == benchmark]
        yield f"### {benchmark.capitalize()}\n"
        yield _recipes(own) if benchmark == "recipes" else table.markdown(own) + _fits(own) + _gate(own)
    if found["absent"]:
        yield "Left out: " + "; ".join(f"{what} ({why})" for what, why in found["absent"].items()) + "."


def _fits(own: list[Figure]) -> str:
    """Format the line through each axis of growth."""
    axes = {figure.case.partition(" ")[0]: figure.parity for figure in own if "slope" in figure.parity}
    rows = [
        f"{axis}: {1000 * of['slope']:.3g} ms for each and {1000 * of['intercept']:.3g} ms once, R² {of['r2']:.4f}"
        for axis, of in axes.items()
    ]
    return "\n" + "; ".join(rows) + ".\n" if rows else ""


def _gate(own: list[Figure]) -> str:
    """Format the difference between the losses of two trainings."""
    found = [figure for figure in own if figure.parity.get("gate") is not None]
    if not found:
        return ""
    steps = "; ".join(f"{figure.implementation} {figure.parity['loss_difference']:.1g}" for figure in found)
    return (
        f"\nThe losses of twenty steps of small networks in fp32 differ from those of the plain loop by at most "
        f"{found[0].parity['gate']:.1g} of the largest loss. Differences of the steps timed here: {steps}.\n"
    )


def _recipes(own: list[Figure]) -> str:
    """Format the cost of each recipe with its accuracies."""
    heading = ["recipe", "gradients per image and epoch", "TFLOP", "clean", "robust, PGD-20"]
    rows = []
    for figure in sorted(own, key=lambda figure: figure.parity["tflops"]):
        of = figure.parity
        name = figure.case.partition(" / ")[0]
        rows.append(
            [name, f"{of['gradients']:.1f}", f"{of['tflops']:.3f}", f"{of['clean']:.1%}", f"{of['robust']:.1%}"]
        )
    return markdown_table(heading, rows) + "\n"


def machine(found: Mapping[str, Any]) -> str:
    """Format the machine of a measurement, and its load."""
    of, load = found["machine"], [averages[0] for averages in found["load"].values()]
    best = [row["gflops_per_second"] for row in found["measured"] if row["subject"].startswith("a 3x3")]
    rates = f"; fastest convolution {min(best):.0f}–{max(best):.0f} GFLOP/s" if best else ""
    without = "" if of.get("bfloat16", True) else " without bfloat16 arithmetic"
    gpu = next((f"{about['gpu']}, " for about in found["subjects"].values() if about.get("gpu")), "")
    clock = "GPU time" if gpu else "processor time"
    return (
        f"{gpu}{of['processor']}{without}, {of['cores']} cores, one thread, "
        f"torch {found['about']['versions']['torch']}{rates}; "
        f"median over {found['settings']['rounds']} interleaved rounds and quartiles, {clock}; load "
        f"average {min(load):.1f}–{max(load):.1f} ({found['about']['time'][:10]})"
    )


if __name__ == "__main__":
    sys.exit(main())
