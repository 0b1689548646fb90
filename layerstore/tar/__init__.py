"""Tar streams: split into skeleton and payload, entries, and deterministic tars of directories. Exact for any input."""
