"""Rows to counts: columns of anything, bins, sketches and windows of counts."""
