"""Pictures, classes and regions on disk."""
