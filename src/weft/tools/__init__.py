"""Tools around models: checkpoints and what shows a model. Nothing is imported here."""
