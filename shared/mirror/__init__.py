"""Votes, mirrored to another system."""
