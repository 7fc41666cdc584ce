"""Published experiments, comparisons and ablations: several runs in one table."""
