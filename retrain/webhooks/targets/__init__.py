"""One file per CI system: how its request looks and what its answer means.

A target only shapes requests and reads answers; retrying, signing and timing belong to delivery.
"""
