"""What unseen costs, each measurement against the obvious way in the same run: `python -m benchmarks`."""
