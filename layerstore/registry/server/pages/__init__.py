"""The web page: what is in the registry, for a browser. It is made here whole; no script runs in the browser."""
