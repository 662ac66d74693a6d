"""The benchmarks, one file each.

Every file has `points(quick)`, what to measure; `IMPLEMENTATIONS`, our own implementations; and `figures(measured)`,
the ratios. Other implementations that a file names are baselines: their processes run in environments with torch,
numpy and safetensors only, so that nothing is imported here.
"""
