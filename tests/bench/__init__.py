"""Benchmarks, side by side with what others do: ``make bench``.

Absolute figures move with the machine and its load, so every goal is a ratio or a count within one run: the candidates take
turns in random order, and what is reported is the median of the ratios of each round. Time is that of the thread on the
processor. It is no part of the test suite and not in CI.
"""
