#!/usr/bin/env bash
# Run every baseline on every comparison, then update the tables; about 15 minutes on one idle core.
# usage: FOREFEND_DATA=… benchmarks/peers/all.sh [FOLDER]      (of environments.sh; default: .venvs)
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
