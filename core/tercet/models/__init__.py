"""Model families, one file each; see `registry`."""
