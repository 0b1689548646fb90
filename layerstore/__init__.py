"""layerstore."""
