"""Benchmarks: nscontainer against its peers in the same run, and its limits against what was asked.

``python -m benchmarks [NAME…] [--quick] [--json FILE]``; ``make bench`` calls it. Every figure is a
ratio to something measured in the same minutes on the same machine, with its spread.
"""
