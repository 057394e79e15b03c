"""From a model id to a running model: hub, specification, tokeniser, weights."""
