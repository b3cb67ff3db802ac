"""Who gets which share of the requests: one adapter per router.

Setting weights is idempotent, and what was set is read back: a weight not seen is not in force.
"""
