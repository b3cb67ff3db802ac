"""Messages to people: chat, mail, or any webhook.

One message per change of state, never one per tick.
"""
