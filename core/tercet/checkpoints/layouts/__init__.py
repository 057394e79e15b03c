"""One reader per checkpoint layout: its files in, heads out."""
