"""The tap: a process that listens beside the traffic, on copies of packets, never in its way."""
