#!/usr/bin/env bash
# Every peer on every comparison, one process after another, and the tables; about a quarter of an hour of one idle core.
# usage: FOREFEND_DATA=… benchmarks/peers/all.sh [FOLDER]      (where environments.sh put them; .venvs by default)
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-.venvs}
python=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=1 PYTHONPATH=${PYTHONPATH:-src}:.
"$python" -m benchmarks.peers.measure ours
"$python" -m benchmarks.peers.measure foolbox
"$folder/torchattacks/bin/python" -m benchmarks.peers.measure torchattacks
"$folder/art/bin/python" -m benchmarks.peers.measure art
"$python" -m benchmarks.peers.compare
"$python" -m benchmarks.peers.compare --check
