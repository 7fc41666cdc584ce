"""Benchmarks: the cost of unseen, each measured against the obvious alternative in the same run."""
