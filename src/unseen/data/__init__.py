"""Images, classes and regions on disk."""
