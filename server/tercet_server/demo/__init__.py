"""The demo: natural-language search in the documentation of the standard library, in four ways side by side."""
