"""Code for this processor, written in Python and compiled by LLVM while the process runs."""
