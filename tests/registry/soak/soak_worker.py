"""One thread of the soak: it pushes, pulls and deletes in repositories of its own, and knows what must be there."""

import random
import threading
from collections import Counter
from dataclasses import dataclass, field

from soak_client import RegistryClient, WrongAnswerError, json_of
from soak_contents import MANIFEST, Blob, Document, artifact, digest_of, image, index, layer

_IMAGES = 60
_TURNS_PER_IMAGE = 5
"""The images that are used change with the time, so that what is deleted is garbage in the end."""
_MISSING = 1_000_000
_TAGS = ("latest", "1", "2", "old")


@dataclass
class Repository:
    """What was acknowledged."""

    name: str
    documents: dict[str, Document] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def blobs(self) -> dict[str, Blob]:
        """Those that manifests name."""
        return {blob.digest: blob for document in self.documents.values() for blob in document.blobs}

    def users(self, digest: str) -> bool:
        """Whether a document names this one, or this blob."""
        return any(
            digest in one.children or any(blob.digest == digest for blob in one.blobs)
            for one in self.documents.values()
        )


class Worker:
    """Does one operation after the other."""

    def __init__(self, address: str, number: int, neighbours: list[str], stopped: threading.Event) -> None:
        self.chooser = random.Random(f"worker {number}")
        self.client = RegistryClient(address, self.chooser, stopped)
        self.repositories = [Repository(f"soak/{number}/{name}") for name in ("app", "base")]
        self.neighbours = neighbours
        self.abandoned: list[str] = []
        self.counts: Counter[str] = Counter()
        self.operations = 0
        # Tags in a repository that all workers push to, each under names of its own.
        self.common = Repository("soak/common")
        self._number = number

    def turn(self) -> None:
        """One operation."""
        repository = self.chooser.choice(self.repositories)
        kinds = {
            self._push_image: 24,
            self._pull: 26,
            self._pull_part: 6,
            self._pull_missing: 4,
            self._list_tags: 5,
            self._delete_tag: 7,
            self._delete_document: 8,
            self._delete_blob: 4,
            self._push_index: 4,
            self._push_artifact: 4,
            self._referrers: 3,
            self._push_common: 4,
            self._abandon: 1,
            self._push_wrong: 2,
        }
        (operation,) = self.chooser.choices(list(kinds), list(kinds.values()))
        operation(repository)
        self.operations += 1
        self.counts[operation.__name__.strip("_")] += 1

    def check_all(self) -> None:
        """Everything that was acknowledged is there, and nothing else."""
        for repository in self.repositories:
            self._list_tags(repository)
            for document in list(repository.documents.values()):
                self._check_document(repository, document)
            for tag, digest in repository.tags.items():
                self._get(repository, tag, repository.documents[digest])
            self._referrers(repository)
        for tag, digest in self.common.tags.items():
            self._get(self.common, tag, self.common.documents[digest])
            self._check_document(self.common, self.common.documents[digest])

    def delete_all(self) -> None:
        """Take everything away again."""
        for repository in self.repositories:
            while repository.documents:
                digest = next(one for one in repository.documents if not repository.users(one))
                self._delete(repository, digest)
            self._list_tags(repository)
        for digest in self.common.documents:
            # Other workers may have pushed it as well, and deleted it before.
            self.client.ask("DELETE", f"/v2/{self.common.name}/manifests/{digest}").expect(202, 404)

    def _any(self) -> int:
        """The number of an image that is in use now."""
        return self.operations // _TURNS_PER_IMAGE + self.chooser.randrange(_IMAGES)

    def _any_layer(self) -> Blob:
        """A layer that images may have now."""
        return layer(self._any() // 2)

    def _push_image(self, repository: Repository) -> None:
        self._push(repository, image(self._any()))

    def _push_index(self, repository: Repository) -> None:
        found = [one for one in repository.documents.values() if one.media_type == MANIFEST]
        if found:
            self._push(repository, index(self.chooser.sample(found, min(2, len(found)))))

    def _push_artifact(self, repository: Repository) -> None:
        if repository.documents:
            subject = self.chooser.choice(list(repository.documents.values()))
            self._push(repository, artifact(self.chooser.randrange(20), subject))

    def _push(self, repository: Repository, document: Document) -> None:
        for blob in document.blobs:
            self.client.push_blob(repository.name, blob, self.neighbours)
        tag = self.chooser.choice((None, *_TAGS))
        answer = self.client.put_manifest(repository.name, tag or document.digest, document)
        if answer.headers["docker-content-digest"] != document.digest:
            raise WrongAnswerError(f"{document.digest} is called {answer.headers['docker-content-digest']}")
        repository.documents[document.digest] = document
        if tag is not None:
            repository.tags[tag] = document.digest

    def _push_common(self, _: Repository) -> None:
        document = image(self._any())
        tag = f"t{self._number}-{self.chooser.randrange(5)}"
        for blob in document.blobs:
            self.client.push_blob(self.common.name, blob, self.neighbours)
        self.client.put_manifest(self.common.name, tag, document)
        self.common.documents[document.digest] = document
        self.common.tags[tag] = document.digest
        self._get(self.common, tag, document)

    def _push_wrong(self, repository: Repository) -> None:
        """Bytes that are not what they are said to be, and a manifest of what is not there: refused."""
        blob = self._any_layer()
        wrong = digest_of(b"something else")
        self.client.ask("POST", f"/v2/{repository.name}/blobs/uploads/?digest={wrong}", blob.data).expect(400)
        document = image(_MISSING + self.chooser.randrange(1000))
        path = f"/v2/{repository.name}/manifests/never"
        missing = document.blobs[0]  # its config, which has the image's number
        self.client.ask("HEAD", f"/v2/{repository.name}/blobs/{missing.digest}").expect(404)
        self.client.ask("PUT", path, document.data, Content_Type=document.media_type).expect(400)

    def _pull(self, repository: Repository) -> None:
        if not repository.documents:
            return
        if repository.tags and self.chooser.random() < 0.5:
            tag = self.chooser.choice(list(repository.tags))
            document = repository.documents[repository.tags[tag]]
            self._get(repository, tag, document)
        document = self.chooser.choice(list(repository.documents.values()))
        self._check_document(repository, document)

    def _check_document(self, repository: Repository, document: Document) -> None:
        self._get(repository, document.digest, document)
        for blob in document.blobs:
            answer = self.client.ask("GET", f"/v2/{repository.name}/blobs/{blob.digest}").expect(200)
            if answer.body != blob.data:
                raise WrongAnswerError(f"wrong bytes for {blob.digest}: {len(answer.body)} of {len(blob.data)}")

    def _get(self, repository: Repository, reference: str, document: Document) -> None:
        answer = self.client.ask("GET", f"/v2/{repository.name}/manifests/{reference}")
        answer.expect(200)
        if answer.body != document.data or answer.headers["content-type"] != document.media_type:
            raise WrongAnswerError(f"{repository.name}:{reference} is not {document.digest}: {answer.body[:200]!r}")

    def _pull_part(self, repository: Repository) -> None:
        blobs = [blob for blob in repository.blobs.values() if blob.data]
        if not blobs:
            return
        blob = self.chooser.choice(blobs)
        start = self.chooser.randrange(len(blob.data))
        end = self.chooser.randrange(start, len(blob.data))
        answer = self.client.ask("GET", f"/v2/{repository.name}/blobs/{blob.digest}", Range=f"bytes={start}-{end}")
        if answer.expect(206).body != blob.data[start : end + 1]:
            raise WrongAnswerError(f"wrong bytes for {start}-{end} of {blob.digest}")

    def _pull_missing(self, repository: Repository) -> None:
        """What was deleted, or was never there, is not there."""
        document = image(self._any())
        tag = self.chooser.choice(_TAGS)
        path = f"/v2/{repository.name}/manifests"
        self.client.ask("GET", f"{path}/{document.digest}").expect(
            200 if document.digest in repository.documents else 404
        )
        self.client.ask("HEAD", f"{path}/{tag}").expect(200 if tag in repository.tags else 404)

    def _list_tags(self, repository: Repository) -> None:
        answer = self.client.ask("GET", f"/v2/{repository.name}/tags/list").expect(200, 404)
        listed = json_of(answer).get("tags") if answer.status == 200 else []
        if listed != sorted(repository.tags) or (answer.status == 404 and repository.documents):
            raise WrongAnswerError(f"{repository.name} has {sorted(repository.tags)}, not {listed} ({answer.status})")

    def _delete_tag(self, repository: Repository) -> None:
        if repository.tags:
            tag = self.chooser.choice(list(repository.tags))
            answer = self.client.ask("DELETE", f"/v2/{repository.name}/manifests/{tag}")
            answer.expect(*((202, 404) if answer.is_retried else (202,)))
            del repository.tags[tag]
            self.client.ask("GET", f"/v2/{repository.name}/manifests/{tag}").expect(404)

    def _delete_document(self, repository: Repository) -> None:
        if repository.documents:
            self._delete(repository, self.chooser.choice(list(repository.documents)))

    def _delete(self, repository: Repository, digest: str) -> None:
        path = f"/v2/{repository.name}/manifests/{digest}"
        answer = self.client.ask("DELETE", path)
        if repository.users(digest):
            answer.expect(405)
            return
        answer.expect(*((202, 404) if answer.is_retried else (202,)))
        del repository.documents[digest]
        repository.tags = {tag: named for tag, named in repository.tags.items() if named != digest}
        self.client.ask("GET", path).expect(404)

    def _delete_blob(self, repository: Repository) -> None:
        """One that a manifest names is kept; another one is gone from this repository, whoever else has it."""
        blob = self._any_layer()
        path = f"/v2/{repository.name}/blobs/{blob.digest}"
        answer = self.client.ask("DELETE", path)
        if blob.digest in repository.blobs:
            answer.expect(405)
            self.client.ask("HEAD", path).expect(200)
        else:
            answer.expect(202, 404)
            self.client.ask("HEAD", path).expect(404)

    def _referrers(self, repository: Repository) -> None:
        subjects = [one.subject for one in repository.documents.values() if one.subject is not None]
        subject = self.chooser.choice([*subjects, image(0).digest])
        answer = self.client.ask("GET", f"/v2/{repository.name}/referrers/{subject}").expect(200)
        manifests = json_of(answer)["manifests"]
        assert isinstance(manifests, list)
        listed = sorted(one["digest"] for one in manifests)
        expected = sorted(one.digest for one in repository.documents.values() if one.subject == subject)
        if listed != expected:
            raise WrongAnswerError(f"referrers of {subject}: {listed}, not {expected}")

    def _abandon(self, repository: Repository) -> None:
        self.abandoned.append(self.client.abandon_upload(repository.name, self._any_layer()))
