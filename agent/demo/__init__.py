"""What `remora demo` needs besides Remora itself: model server, recipe, CI stand-in and rows.

Everything here travels inside the wheel: the demo must run with no checkout and no network.
"""
