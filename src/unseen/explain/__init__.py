"""Why: evidence and heat maps as images."""
