"""Frozen values that everything else is written in terms of.  No behaviour beyond validation and lookup."""
