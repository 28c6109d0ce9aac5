"""Judges the votes: one evaluation in, one report or one retrain out."""
