"""What is learned from votes, and whether it is worth having. Pure: no database, no clock, no network.

`credit` turns votes into targets, `memory`, `fusion_weight` and `adapter` fit to them, `measures` says
how good a ranking is, `gate` whether a change may be promoted, and `trial` puts them in order: fit on
the older votes, judge on the newer, and only then fit on all.
"""
