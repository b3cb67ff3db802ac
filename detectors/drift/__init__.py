"""Drift of any set of profiles: evidence, ladder, recovery, effects, words."""
