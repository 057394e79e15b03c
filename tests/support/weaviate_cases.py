"""What the tests of the Weaviate adapter store and ask."""

from tercet import VectorSpec

KEY = "key-of-tercet"  # for the server's models
SPEC = VectorSpec(dense="tiny/bert", multivector="tiny/m3")
TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "numbers 0 1 2 and 1999",
    "café, naïve and 你好",
    "",
    "a fox and another fox",
    "hello world",
    "words " * 200,
]
