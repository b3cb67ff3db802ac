"""Where a run happens: on this machine, on Ray, as a Kubernetes Job, or in somebody's CI.

A job sees a scrubbed environment: no state, no tokens, no secrets of the agent.
"""
