"""Tercet on the command line, and what it serves."""
