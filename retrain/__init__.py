"""From readings to a better model in production, or the old one back.

Deciding is pure and comes before performing: `(state, event, now)` gives `(state, commands)`.
"""
