"""Renew the tables of speed in documents, from the `bench.json` files in results/bench alone.

usage: PYTHONPATH=src:. python -m benchmarks.speed_table [--check]

Between `<!-- speed promised -->` and `<!-- end -->` go the machine and every figure that a bar was set for; between
`<!-- speed all -->` and `<!-- end -->` all of them, question by question, with growth and the cost of recipes. With
--check nothing is written; the exit status is 1 if a document's tables are not the file's own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.pages import filled
from benchmarks.speed import table
from benchmarks.speed.results import Figure
from forefend.checks import InputError
from forefend.runtime import files
from forefend.runtime.formatting import markdown_table

BENCH = Path("results/bench")
DOCUMENTS = {  # and where each one's figures lie
    BENCH / "README.md": BENCH / "bench.json",
    BENCH / "without-bfloat16/README.md": BENCH / "without-bfloat16/bench.json",
}


def main() -> int:
    """Read the command line, renew or check, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    stale = False
    for document, found in DOCUMENTS.items():
        old = document.read_text(encoding="utf-8")
        new = renewed(old, files.read_json(found))
        stale |= new != old
        if not given.check:
            files.write(document, new.encode())
    return int(given.check and stale)


def renewed(document: str, found: Mapping[str, Any]) -> str:
    """The document with its tables made anew.

    Raises:
        InputError: it has no place for one, or two for the same.
    """
    made = {"speed promised": promised, "speed all": everything}
    blocks = {name: "\n".join(make(found)) + "\n" for name, make in made.items() if f"<!-- {name} -->" in document}
    if not blocks:
        raise InputError("The document has no place for a table: put in <!-- speed promised --> and <!-- end -->.")
    return filled(document, blocks)


def figures(found: Mapping[str, Any]) -> list[Figure]:
    """The file's figures."""
    return [Figure(**{k: v for k, v in figure.items() if k != "missed"}) for figure in found["figures"]]


def promised(found: Mapping[str, Any]) -> Iterator[str]:
    """The machine, and the figures that a bar was set for."""
    yield table.markdown([figure for figure in figures(found) if figure.bar is not None])
    yield machine(found)


def everything(found: Mapping[str, Any]) -> Iterator[str]:
    """All figures, question by question."""
    for question in found["settings"]["questions"]:
        own = [figure for figure in figures(found) if figure.question == question]
        yield f"### {question.capitalize()}\n"
        yield recipes(own) if question == "recipes" else table.markdown(own) + fits(own) + gate(own)
    if found["absent"]:
        yield "Left out: " + "; ".join(f"{what} ({why})" for what, why in found["absent"].items()) + "."


def fits(own: list[Figure]) -> str:
    """The line through each axis of growth."""
    axes = {figure.case.partition(" ")[0]: figure.parity for figure in own if "slope" in figure.parity}
    rows = [
        f"{axis}: {1000 * of['slope']:.3g} ms for each and {1000 * of['intercept']:.3g} ms once, R² {of['r2']:.4f}"
        for axis, of in axes.items()
    ]
    return "\n" + "; ".join(rows) + ".\n" if rows else ""


def gate(own: list[Figure]) -> str:
    """How far the losses of two trainings were apart."""
    found = [figure for figure in own if figure.parity.get("gate") is not None]
    if not found:
        return ""
    steps = "; ".join(f"{figure.subject} {figure.parity['loss_difference']:.1g}" for figure in found)
    return (
        f"\nThe losses of twenty steps of small networks in fp32 differ from the plain loop's by at most "
        f"{found[0].parity['gate']:.1g} of the largest; those of the steps timed here by: {steps}.\n"
    )


def recipes(own: list[Figure]) -> str:
    """What each recipe cost, and what it reached."""
    heading = ["recipe", "gradients an image and epoch", "TFLOP", "clean", "robust, PGD-20"]
    rows = []
    for figure in sorted(own, key=lambda figure: figure.parity["tflops"]):
        of = figure.parity
        name = figure.case.partition(" / ")[0]
        rows.append(
            [name, f"{of['gradients']:.1f}", f"{of['tflops']:.3f}", f"{of['clean']:.1%}", f"{of['robust']:.1%}"]
        )
    return markdown_table(heading, rows) + "\n"


def machine(found: Mapping[str, Any]) -> str:
    """Where this was measured, and how busy it was."""
    of, load = found["machine"], [averages[0] for averages in found["load"].values()]
    best = [row["gflops_per_second"] for row in found["measured"] if row["subject"].startswith("a 3x3")]
    rates = f"; best convolution {min(best):.0f}–{max(best):.0f} GFLOP/s" if best else ""
    without = "" if of.get("bfloat16", True) else " without bfloat16 arithmetic"
    gpu = next((f"{told['gpu']}, " for told in found["subjects"].values() if told.get("gpu")), "")
    clock = "on the GPU's clock" if gpu else "by the process's own time"
    return (
        f"{gpu}{of['processor']}{without}, {of['cores']} cores, one thread, "
        f"torch {found['about']['versions']['torch']}{rates}; "
        f"median over {found['settings']['rounds']} interleaved rounds and quartiles, {clock}; load "
        f"average {min(load):.1f}–{max(load):.1f} ({found['about']['time'][:10]})"
    )


if __name__ == "__main__":
    sys.exit(main())
