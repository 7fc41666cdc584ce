"""Tables of attributes as people write them, turned into numbers."""
