"""Why: evidence and heat maps as pictures."""
