import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.digest import Digest
from layerstore.errors import InvalidReferenceError
from layerstore.oci.reference import Reference, check_tag

D = "sha256:" + "f" * 64

# text, domain, path, tag, digest
VALID = [
    ("shop:1.0", "", "shop", "1.0", None),
    ("registry.example:5000/team/app:latest", "registry.example:5000", "team/app", "latest", None),
    ("test_com:x", "", "test_com", "x", None),
    ("test.com:tag", "", "test.com", "tag", None),
    ("test.com:5000", "", "test.com", "5000", None),
    ("test.com/repo:tag", "test.com", "repo", "tag", None),
    ("test:5000/repo:tag", "test:5000", "repo", "tag", None),
    (f"test:5000/repo@{D}", "test:5000", "repo", None, D),
    (f"test:5000/repo:tag@{D}", "test:5000", "repo", "tag", D),
    ("name@sha512:" + "a" * 128, "", "name", None, "sha512:" + "a" * 128),
    ("lowercase:Uppercase", "", "lowercase", "Uppercase", None),
    ("localhost/app:1", "localhost", "app", "1", None),
    ("localhost:5000/app:1", "localhost:5000", "app", "1", None),
    ("team/app:1", "", "team/app", "1", None),
    ("sub-dom1.foo.com/bar/baz/quux:some-long-tag", "sub-dom1.foo.com", "bar/baz/quux", "some-long-tag", None),
    ("b.gcr.io/test.example.com/my-app:t.e", "b.gcr.io", "test.example.com/my-app", "t.e", None),
    (f"xn--7o8h.com/myimage:xn--7o8h.com@{D}", "xn--7o8h.com", "myimage", "xn--7o8h.com", D),
    ("foo_bar.com/app:8080", "", "foo_bar.com/app", "8080", None),
    ("192.168.1.1:5000/repo:5050", "192.168.1.1:5000", "repo", "5050", None),
    ("[2001:db8::1]:5000/repo:tag", "[2001:db8::1]:5000", "repo", "tag", None),
    (f"[::1]/repo@{D}", "[::1]", "repo", None, D),
    ("Registry.Example/app:1", "Registry.Example", "app", "1", None),
    ("a--b/c__d/e_f/g.h:_x", "", "a--b/c__d/e_f/g.h", "_x", None),
    ("a:" + "t" * 128, "", "a", "t" * 128, None),
    ("a" * 63 + ":x", "", "a" * 63, "x", None),
    ("a" * 65 + ":x", "", "a" * 65, "x", None),
    ("x/" + "f" * 64 + ":x", "", "x/" + "f" * 64, "x", None),
    ("a/" * 127 + "a:tag", "", "a/" * 127 + "a", "tag", None),
]

# text, what the message says
INVALID = [
    ("", "empty"),
    (":justtag", "name is empty"),
    (f"@{D}", "name is empty"),
    ("shop:", "tag after the colon is empty"),
    ("shop@", "bad digest"),
    ("shop:1@", "bad digest"),
    ("repo@sha256:" + "f" * 34, "bad digest"),
    ("repo@sha256:" + "F" * 64, "bad digest"),
    ("validname@invaliddigest:" + "f" * 64, "bad digest"),
    (f"shop@{D}@{D}", "bad digest"),
    ("Uppercase:tag", "lower case"),
    ("Team/app:1", "lower case"),
    ("test:5000/Uppercase/lowercase:tag", "lower case"),
    ("shop:.x", "no tag"),
    ("shop:-x", "no tag"),
    ("shop:a b", "no tag"),
    ("shop:é", "no tag"),
    ("shop:x\n", "no tag"),
    ("shop:" + "t" * 129, "129 characters"),
    ("domain/" + "a" * 249 + ":tag", "256 characters"),
    ("a" * 2000, "too long"),
    ("f" * 64, "digest"),
    ("f" * 64 + ":tag", "digest"),
    ("aa/asdf$$^/aa", "not valid"),
    ("a//b", "empty component"),
    ("/a", "empty component"),
    ("a/", "empty component"),
    ("a/:tag", "empty component"),
    ("-a", "not valid"),
    ("a-", "not valid"),
    ("a..b", "not valid"),
    ("a___b", "not valid"),
    ("a._b", "not valid"),
    (" shop", "not valid"),
    ("shop\n", "not valid"),
    ("sho​p", "not valid"),
    ("café", "not valid"),
    ("host:port/app:1", "no registry"),
    ("-host.example/app:1", "no registry"),
    ("host..example/app:1", "no registry"),
    ("[2001:db8::1]", "no repository name"),
    ("[2001:db8::1]:5000", "no repository name"),
    ("[fe80::1%eth0]:5000/repo", "no registry"),
    ("https://registry.example/app:1", "URL"),
    ("docker://app", "URL"),
]


@pytest.mark.parametrize(("text", "domain", "path", "tag", "digest"), VALID)
def test_parse(text: str, domain: str, path: str, tag: str | None, digest: str | None) -> None:
    reference = Reference.parse(text)
    assert (reference.domain, reference.path, reference.tag, reference.digest) == (domain, path, tag, digest)
    assert reference.name == (f"{domain}/{path}" if domain else path)
    assert str(reference) == text


@pytest.mark.parametrize(("text", "says"), INVALID)
def test_refuses_and_says_why(text: str, says: str) -> None:
    with pytest.raises(InvalidReferenceError, match=says):
        Reference.parse(text)


def test_a_mere_name_has_the_tag_latest() -> None:
    assert Reference.parse("shop") == Reference("shop", "latest")
    assert str(Reference.parse("shop")) == "shop:latest"
    assert Reference.parse(f"shop@{D}").tag is None


def test_parts_are_checked_too() -> None:
    assert str(Reference("shop", digest=Digest(D))) == f"shop@{D}"
    for name, tag in [("Shop", "1"), ("shop:1", "1"), ("shop", ""), ("shop", "a/b"), ("shop", None), ("", "x")]:
        with pytest.raises(InvalidReferenceError):
            Reference(name, tag)


def test_check_tag() -> None:
    check_tag("v1.0-rc_1")
    with pytest.raises(InvalidReferenceError):
        check_tag("a:b")


@pytest.mark.parametrize(
    ("text", "normalized", "familiar"),
    [
        ("shop", "docker.io/library/shop:latest", "shop:latest"),
        ("team/app:1", "docker.io/team/app:1", "team/app:1"),
        ("docker.io/library/shop:1", "docker.io/library/shop:1", "shop:1"),
        ("docker.io/shop:1", "docker.io/library/shop:1", "shop:1"),
        ("index.docker.io/shop:1", "docker.io/library/shop:1", "shop:1"),
        ("library/shop:1", "docker.io/library/shop:1", "shop:1"),
        ("docker.io/library/a/b:1", "docker.io/library/a/b:1", "library/a/b:1"),
        ("docker.io/a.b/c:1", "docker.io/a.b/c:1", "docker.io/a.b/c:1"),
        ("docker.io/localhost/c:1", "docker.io/localhost/c:1", "docker.io/localhost/c:1"),
        ("registry.example/library/app:1", "registry.example/library/app:1", "registry.example/library/app:1"),
        ("localhost/app:1", "localhost/app:1", "localhost/app:1"),
        (f"shop:1@{D}", f"docker.io/library/shop:1@{D}", f"shop:1@{D}"),
    ],
)
def test_docker_defaults(text: str, normalized: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert str(reference.normalized()) == normalized
    assert str(reference.familiar()) == familiar
    assert reference.familiar().normalized() == reference.normalized()


@given(st.text(max_size=300) | st.text("aB0./:@-_[]\n", max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReferenceError:
        return
    assert Reference.parse(str(reference)) == reference


NAMES = st.from_regex(r"\A(?:[a-z0-9]{1,5}(?:[._]|__|-{1,3})){0,2}[a-z0-9]{1,5}\Z")


@given(
    st.sampled_from(["", "localhost/", "r.example/", "r:5000/", "[::1]:5/"]),
    st.lists(NAMES, min_size=1, max_size=4),
    st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z"),
    st.booleans(),
)
def test_whatever_the_grammar_makes_is_parsed(domain: str, components: list[str], tag: str, with_digest: bool) -> None:
    name = domain + "/".join(components)
    reference = Reference.parse(f"{name}:{tag}" + (f"@{D}" if with_digest else ""))
    assert (reference.name, reference.tag) == (name, tag)
    assert (reference.digest is not None) == with_digest
    assert reference.familiar().normalized() == reference.normalized()
