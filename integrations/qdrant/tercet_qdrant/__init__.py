"""Tercet for Qdrant."""
