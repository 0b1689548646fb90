from layerstore.oci import media_types


def test_every_layer_type_has_its_compression() -> None:
    layers = {value for name, value in vars(media_types).items() if "LAYER" in name and isinstance(value, str)}
    assert layers == set(media_types.LAYER_COMPRESSIONS)
    assert layers >= media_types.NONDISTRIBUTABLE_LAYERS
    for media_type, compression in media_types.LAYER_COMPRESSIONS.items():
        assert media_type.endswith("tar" if compression == "none" else compression)


def test_nondistributable_layers_are_those_that_say_so() -> None:
    said = {name for name in media_types.LAYER_COMPRESSIONS if "nondistributable" in name or "foreign" in name}
    assert said == media_types.NONDISTRIBUTABLE_LAYERS
