"""The admin API and the status page.

Whatever changes state asks for a token, also on loopback; the page never uses a cookie.
"""
