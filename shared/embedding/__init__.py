"""Text in, unit vectors out: what the embedder builds and searches with, and the analyzer groups by."""
