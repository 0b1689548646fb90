"""The server: a store as a registry, over HTTP (extra ``server``)."""
