"""The running process: brings inferences in and wires everybody together.

Keep this file empty but for the version: the edge process imports it on its way to 24 MiB.
"""

__version__ = "0.1.0"
