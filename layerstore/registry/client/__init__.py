"""The client: repositories of registries as places that images come from and go to."""
