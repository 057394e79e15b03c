"""Tercet for Chroma."""
