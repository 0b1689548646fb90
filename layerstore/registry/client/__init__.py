"""The client: repositories of registries as places that images come from and go to.

`RemoteRepository` is a place as `layerstore.places` has them. Whatever it asks of a registry goes through
`Connection.request`; a blob comes down in `Download` and goes up in `Uploads.send`.
"""
