"""Exchanges in, inferences out: one file per protocol of a model server.

A decoder raises only `DecodeError`, with a reason from a closed set: its reasons are metric labels.
"""
