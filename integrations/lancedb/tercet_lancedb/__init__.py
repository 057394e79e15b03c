"""Tercet for Lancedb."""
