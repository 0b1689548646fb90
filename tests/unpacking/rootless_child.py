"""Becomes a user without rights, pushes the layers of a folder and unpacks them; prints the report as JSON.

It is started by root: others may not be allowed to read the interpreter.
"""

import codecs
import dataclasses
import json
import os
import sys
from pathlib import Path

from layerstore import Store
from layerstore.unpacking import unpack

place, user = Path(sys.argv[1]), int(sys.argv[2])
codecs.lookup("unicode_escape")  # loaded when it is first asked for, which is too late then
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
with Store.create(place / "store") as store:
    layers = [store.push_layer(path).layer for path in sorted((place / "layers").iterdir())]
    with store.view(layers) as view:
        report = unpack(view, place / "ours")
print(json.dumps(dataclasses.asdict(report), default=lambda value: value.decode(errors="backslashreplace")))
