"""A stack of layers merged into one tree of inodes (OCI image specification, layer.md, "Applying Changesets").

Each layer is applied as if it were extracted over those below: first what it hides of them, wherever its whiteouts
stand in the tar, then its entries in their order. So a whiteout never hides what its own layer brings.
"""

from collections.abc import Sequence

from layerstore.digest import Digest
from layerstore.errors import InvalidInputError, LayerstoreError
from layerstore.tar.entries import EntryKind, TarEntry
from layerstore.union.errors import LinkLoopError, NotADirectoryInViewError, PathNotFoundError
from layerstore.union.inode import Inode, Trail, leaves
from layerstore.union.layer_index import LayerIndex, clean_path
from layerstore.union.resolution import resolve

_UNREACHABLE = (PathNotFoundError, NotADirectoryInViewError, LinkLoopError)


def build_tree(layers: Sequence[Digest], indexes: Sequence[LayerIndex]) -> Inode:
    """The root of the merged stack, given from the lowest layer up.

    Raises `InvalidInputError` for a hard link that leads to nothing or to a directory, and for an entry in a folder
    that is a loop of symbolic links: no tool unpacks those.
    """
    tree = _Tree()
    for position, (diff_id, index) in enumerate(zip(layers, indexes, strict=True)):
        _LayerOver(tree, position, diff_id, index).apply()
    tree.count_links()
    return tree.root


class _Tree:
    """The tree as far as it is built."""

    def __init__(self) -> None:
        self.root = Inode(EntryKind.DIRECTORY, None, -1, 0)
        self.linked: set[Inode] = set()
        """What ever had several names. Names are lost with whole directories, so they are counted at the end."""
        self._folders: dict[bytes, Inode] = {}
        """Where folders lead to, until something that they may lead through is replaced."""

    def known_folder(self, folder: bytes) -> Inode | None:
        """Where a folder leads to, if that is known."""
        return self._folders.get(folder)

    def remember_folder(self, folder: bytes, inode: Inode) -> None:
        """Note where a folder leads to."""
        self._folders[folder] = inode

    def forget_folders(self) -> None:
        """Something that folders may lead through was replaced or removed."""
        self._folders.clear()

    def count_links(self) -> None:
        """Set the number of names of everything that had several."""
        if not self.linked:
            return
        for inode in self.linked:
            inode.links = 0
        for leaf in leaves(self.root):
            if leaf in self.linked:
                leaf.links += 1


class _LayerOver:
    """One layer on its way into the tree."""

    def __init__(self, tree: _Tree, position: int, diff_id: Digest, index: LayerIndex) -> None:
        self._tree = tree
        self._position = position
        self._diff_id = diff_id
        self._index = index
        self._number = 0
        self._before: dict[bytes, Inode] = {}
        """What hard links of this layer lead to in the layers below, where this layer hides it."""
        self._aufs: dict[bytes, Inode] = {}

    def apply(self) -> None:
        index = self._index
        if index.whiteouts or index.opaque:
            targets = self._link_targets()
            self._hide()
            self._before = {path: found for path, found in targets.items() if self._find(path) is None}
        for folder, name, entry in index.entries:
            self._put(folder, name, entry)

    # --- what is hidden -----------------------------------------------------------------------------------------------

    def _hide(self) -> None:
        for folder in self._index.opaque:
            hidden = self._lower_folder(folder)
            if hidden is not None and hidden.children is not None:
                hidden.children.clear()
        for folder, name in self._index.whiteouts:
            hidden = self._lower_folder(folder)
            if hidden is not None and hidden.children is not None:
                hidden.children.pop(name, None)
        self._tree.forget_folders()

    def _lower_folder(self, folder: bytes) -> Inode | None:
        """Where a whiteout's folder leads to in the layers below, None if to nothing.

        A symbolic link there is followed as all engines do, but not if this layer has something else in its place:
        overlayfs marks a directory opaque that replaces a link, and what the link led to is not meant.
        """
        trail: Trail = []
        here = self._tree.root
        parts = folder.split(b"/") if folder else []
        for count, part in enumerate(parts, 1):
            child = here.children.get(part) if here.children is not None else None
            if child is None:
                return None
            if child.kind is EntryKind.SYMLINK:
                if b"/".join(parts[:count]) in self._index.names:
                    return None
                try:
                    trail = resolve(self._tree.root, part, start=trail)
                except _UNREACHABLE:
                    return None
                here = trail[-1][1] if trail else self._tree.root
            else:
                trail.append((part, child))
                here = child
        return here

    def _link_targets(self) -> dict[bytes, Inode]:
        # The whiteout of a link's target may stand behind the link: extracted in order, the link finds it.
        paths = {
            clean_path(entry.link_target) for _, _, entry in self._index.entries if entry.kind is EntryKind.HARDLINK
        }
        found = {path: self._find(path) for path in paths}
        return {path: inode for path, inode in found.items() if inode is not None}

    # --- what is put --------------------------------------------------------------------------------------------------

    def _put(self, folder: bytes, name: bytes, entry: TarEntry) -> None:
        if not name:
            if entry.kind is EntryKind.DIRECTORY:  # nothing else can be a root
                self._give_attributes(self._tree.root, entry)
            return
        place = self._folder(folder, entry)
        assert place.children is not None, "it is a directory"
        old = place.children.get(name)
        if entry.kind is EntryKind.DIRECTORY and old is not None and old.children is not None:
            self._give_attributes(old, entry)
            return
        if entry.kind is EntryKind.HARDLINK:
            new = self._link_target(entry)
            self._tree.linked.add(new)
        else:
            new = self._new(entry.kind, entry)
        if old is not None and (old.children is not None or old.kind is EntryKind.SYMLINK):
            self._tree.forget_folders()
        place.children[name] = new

    def _folder(self, folder: bytes, entry: TarEntry) -> Inode:
        """The directory that an entry belongs in; made if it is missing."""
        known = self._tree.known_folder(folder)
        if known is not None:
            return known
        try:
            # The slash at the end: it must be a directory, too.
            trail = resolve(self._tree.root, folder + b"/", make=self._make_directory)
        except LayerstoreError as error:
            raise self._refusal(entry, f"cannot be reached: {error}") from None
        inode = trail[-1][1] if trail else self._tree.root
        self._tree.remember_folder(folder, inode)
        return inode

    def _make_directory(self, place: Inode, name: bytes) -> Inode:
        assert place.children is not None, "it is a directory"
        if name in place.children:
            self._tree.forget_folders()
        new = place.children[name] = self._new(EntryKind.DIRECTORY, None)
        return new

    def _new(self, kind: EntryKind, entry: TarEntry | None) -> Inode:
        self._number += 1
        return Inode(kind, entry, self._position, self._number)

    def _give_attributes(self, directory: Inode, entry: TarEntry) -> None:
        self._number += 1
        directory.entry, directory.layer, directory.number = entry, self._position, self._number

    # --- hard links ---------------------------------------------------------------------------------------------------

    def _link_target(self, entry: TarEntry) -> Inode:
        """What a hard link leads to: a name of the tree as it is at this point, be it of this layer or one below.

        Its attributes are those of the file: what the link's own header says of them is the same, or nothing.
        """
        target = clean_path(entry.link_target)
        found = self._find(target) or self._before.get(target) or self._aufs_file(target)
        if found is None:
            raise self._refusal(entry, f"is a hard link to {entry.link_target!r}, where nothing is")
        if found.children is not None:
            raise self._refusal(entry, f"is a hard link to {entry.link_target!r}, which is a directory")
        return found

    def _find(self, path: bytes) -> Inode | None:
        try:
            trail = resolve(self._tree.root, path, follow_last=False)
        except _UNREACHABLE:
            return None
        return trail[-1][1] if trail else self._tree.root

    def _aufs_file(self, path: bytes) -> Inode | None:
        entry = self._index.aufs.get(path)
        if entry is None or entry.kind in (EntryKind.HARDLINK, EntryKind.DIRECTORY):
            return None
        found = self._aufs.get(path)
        if found is None:
            found = self._aufs[path] = self._new(entry.kind, entry)
        return found

    def _refusal(self, entry: TarEntry, reason: str) -> InvalidInputError:
        return InvalidInputError(f"entry {entry.path!r} of layer {self._diff_id} {reason}")
