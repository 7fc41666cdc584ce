"""Region features on disk: extracted, imported, read and reduced."""
