"""The bench's questions, one file each: what is measured, who does it, and which ratios answer.

Every file has `points(quick)`, what to measure; `SUBJECTS`, who of ours sets up which work; and `figures(measured)`.
Subjects that a file names and does not have are peers: they live in `benchmarks/`, in environments that need torch,
numpy and safetensors alone, so that nothing is imported here.
"""
