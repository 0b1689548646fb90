"""Does with a container what a test did as root, as a user who has no rights; prints what came of it.

It is started by root: others may not be allowed to read the interpreter.
"""

import codecs
import json
import os
import sys
from pathlib import Path

from container_samples import changed, check_commit, groups, picture, uppers
from rootless_changes import change

from layerstore import Store

place, user = Path(sys.argv[1]), int(sys.argv[2])
codecs.lookup("unicode_escape")  # loaded when it is first asked for, which is too late then
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
with Store.create(place / "store") as store:
    layers = [store.push_layer(path).layer for path in sorted((place / "layers").iterdir())]
    image = store.create_image(layers)
    with image.container() as container:
        with image.view() as view:
            first = picture(container) == picture(view)
        change(container)
        check_commit(container).close()
        child = container.commit()
        shown = picture(container)
        container.close()
        said = {
            "first": first,
            "owners_kept": container.description.owners_kept,
            "layer": child.layers[-1].diff_id,
            "changes": changed(container),
            "shown": repr(sorted(shown.items())),
            "groups": repr(sorted(sorted(group) for group in groups(container))),
            "reopened": picture(container) == shown,
            "owners": sorted({(container._folder.upper / path).lstat().st_uid for path in uppers(container)}),
        }
    container.remove()
    said["removed"] = list(store.containers) == [] and list((store.path / "containers").iterdir()) == []
print(json.dumps(said))
