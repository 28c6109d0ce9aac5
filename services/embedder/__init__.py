"""Turns documents into vectors: reads, chunks, embeds, builds generations, searches them."""
