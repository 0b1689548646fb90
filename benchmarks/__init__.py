"""Benchmarks of layerstore: deduplication ratios, and its costs beside other tools."""
