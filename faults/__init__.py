"""What happens to unseen when things go wrong, tried out on purpose: `python -m faults`."""
