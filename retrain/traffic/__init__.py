"""What serves a candidate: processes that we start and adopt, and upstreams that we only ask.

Nothing is signalled that is not identified by pid and start time: a pid alone names nobody.
"""
