"""Readers of the files that the field's datasets come in; none of them runs code out of a file."""
