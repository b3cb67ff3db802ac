"""The proxy's hot path: relay first, copy second.

Imports uvloop, httptools and the standard library, nothing else of ours or of anybody.
"""
