"""Knowledge infusion scaling laws: inject facts F times, probe them, fit where memory collapses.

Nothing heavy is imported here: an interpreter hook loads this package at every start of Python.
"""

__version__ = "0.1.0"
