"""Collector: votes and conversations come in over HTTP and from the owner's own tables."""
