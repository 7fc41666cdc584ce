"""Readers of file formats of the field's datasets; none of them runs code from a file."""
