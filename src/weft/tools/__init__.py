"""Tools around models: what shows a model, and weights of others. Nothing is imported here."""
