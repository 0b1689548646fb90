"""Registries: a server that speaks the OCI distribution protocol, and a client for any that does."""
