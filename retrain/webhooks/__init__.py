"""Signed messages to whoever retrains: an outbox on disk and its delivery.

A message is in the outbox before anything is sent, and is delivered at least once with one id.
"""
