"""Turn attribute tables as people write them into numbers."""
