"""How others see Remora: metrics, alerts, events and reports.

May import values of `detectors`, nothing else of ours; a failing export never stops the agent.
"""
