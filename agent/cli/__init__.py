"""The commands, one file per group; the only place that prints.

Results go to standard output and logs to standard error: a pipe must never meet a log line.
"""
