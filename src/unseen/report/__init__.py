"""Tables and pages from runs."""
