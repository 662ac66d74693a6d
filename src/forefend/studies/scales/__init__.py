"""The settings of each study at its scales: digits, small networks on real data, and as published."""
