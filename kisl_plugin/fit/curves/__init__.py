"""Observations of one model → its collapse curve."""
