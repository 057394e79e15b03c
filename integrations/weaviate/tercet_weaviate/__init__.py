"""Tercet for Weaviate."""
