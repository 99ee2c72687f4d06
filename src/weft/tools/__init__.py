"""Tools around models: what shows a model. Nothing is imported here."""
