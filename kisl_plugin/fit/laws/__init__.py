"""Collapse points → infusion laws and what they predict."""
