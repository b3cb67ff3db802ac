"""The embedded pipeline: prepare, tune, train, validate, package.

Runs in a job process of its own, so torch may be imported here; the agent never imports it.
"""
