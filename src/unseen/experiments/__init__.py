"""Published experiments, comparisons and ablations: several runs, one table."""
