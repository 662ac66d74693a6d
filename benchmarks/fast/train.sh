#!/bin/sh
# The two Fashion-MNIST cases: an adversarially trained classifier, and a pipeline whose recipe is
# benchmarks/parity's an-eighth-noised; then a CIFAR-10 pipeline, its fast-crafting. About twenty minutes on one core.
set -e
FOREFEND="${PYTHON:-.venv/bin/python} -m forefend"
$FOREFEND train natural --data fashion-mnist --classifier cnn --epochs 3 --out runs/fast/fashion-cnn
$FOREFEND train adversarial --data fashion-mnist --classifier cnn --threat Linf:0.2 --inner-attack atta --atta-steps 2 3 \
  --atta-noise 0.5 --epochs 8 --images 10000 --batch-size 32 --lr 0.01 --ema 0.99 --out runs/fast/fashion-adversarial
$FOREFEND train aaa --data fashion-mnist --guides runs/fast/fashion-cnn --threat Linf:0.2 --hold-out 0 --steps 10 \
  --relative-step 0.25 --ema 0.99 --preprocessor aaa-autoencoder --images 10000 --batch-size 16 --lr 0.004 --epochs 8 \
  --attack-copy bf16 --precision bf16 --inner-attack atta --atta-steps 2 3 --atta-noise 0.5 --out runs/fast/fashion-pipeline
$FOREFEND train aaa --data cifar-10 --guides "resnet20:${FOREFEND_DATA:-.data}/classifiers/akamaster-cifar10-resnet20.th" \
  --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 --threat Linf:1/255 --hold-out 0 --steps 10 --relative-step 0.25 --ema 0.99 \
  --preprocessor narrow-dncnn --mse-weight 1 --images 4000 --batch-size 16 --lr 0.001 --epochs 4 --attack-copy bf16 \
  --precision bf16 --out runs/fast/cifar-pipeline
