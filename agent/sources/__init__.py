"""Where bytes enter: each source turns them into exchanges.

A source's `emit` never blocks; what it could not take is counted as a drop with its reason.
"""
