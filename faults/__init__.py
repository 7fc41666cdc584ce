"""Campaigns that make things go wrong on purpose, to see what unseen does: `python -m faults`."""
