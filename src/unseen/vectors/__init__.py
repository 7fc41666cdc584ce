"""Attribute vectors: given, from word vectors or text encoders, or learned."""
