"""Arithmetic over streams of batches: from rows to readings.

Pure: no input or output, no clock, nothing of ours imported; the same batches give the same state.
"""
