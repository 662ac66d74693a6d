#!/bin/sh
# The two Fashion-MNIST cases: an adversarially trained classifier, and a pipeline whose recipe is
# benchmarks/parity's an-eighth-noised. About ten minutes on one core.
set -e
FOREFEND="${PYTHON:-.venv/bin/python} -m forefend"
$FOREFEND train natural --data fashion-mnist --classifier cnn --epochs 3 --out runs/fast/fashion-cnn
$FOREFEND train adversarial --data fashion-mnist --classifier cnn --threat Linf:0.2 --inner-attack atta --atta-steps 2 3 \
  --atta-noise 0.5 --epochs 8 --images 10000 --batch-size 32 --lr 0.01 --ema 0.99 --out runs/fast/fashion-adversarial
$FOREFEND train aaa --data fashion-mnist --guides runs/fast/fashion-cnn --threat Linf:0.2 --hold-out 0 --steps 10 \
  --relative-step 0.25 --ema 0.99 --preprocessor aaa-autoencoder --images 10000 --batch-size 16 --lr 0.004 --epochs 8 \
  --attack-copy bf16 --precision bf16 --inner-attack atta --atta-steps 2 3 --atta-noise 0.5 --out runs/fast/fashion-pipeline
