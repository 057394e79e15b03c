"""Files of texts in, files of vectors or scores out: bounded memory, and nothing lost when it is killed."""
