"""Protocols without sockets: bytes in, events out.

No asyncio, socket, threading or time in here, so that every test can be a dialogue.
"""
