"""Who may see what: repositories, and what can be learnt of others through what is shared with them."""

from pages_html import Document
from pages_samples import Samples
from pages_server import RunningServer

from layerstore import Store


def test_the_overview_lists_only_what_the_reader_may_see(guarded: RunningServer) -> None:
    def listed(account: str | None) -> list[str]:
        return [row[0] for row in Document(guarded.page("/", account=account)).rows("")]

    assert listed(None) == ["team/shop", "team/site"]
    assert listed("bob") == ["team/shop", "team/site"]
    assert listed("ann") == ["base", "mirror/shop", "odd", "team/shop", "team/site"]
    assert listed("root") == ["base", "mirror/shop", "odd", "private/plans", "team/shop", "team/site"]
    assert "private" not in guarded.page("/?q=private", account="ann").partition("</form>")[2].replace("“private”", "")


def test_the_figures_of_the_whole_store_are_for_those_who_see_all_of_it(guarded: RunningServer) -> None:
    assert "Ratio" in Document(guarded.page("/", account="root")).facts()
    for account in (None, "ann"):
        text = guarded.page("/", account=account)
        assert "Ratio" not in Document(text).facts() and "<polyline" not in text


def test_who_is_signed_in_stands_on_the_page(guarded: RunningServer) -> None:
    assert "Signed in as" not in guarded.page("/")
    assert "/sign-in" in Document(guarded.page("/")).links().values()
    text = guarded.page("/", account="ann")
    assert "Signed in as <bdi>ann</bdi>" in text and "/sign-in" not in text


def test_a_browser_is_asked_for_a_name_and_a_password(guarded: RunningServer) -> None:
    for path, account, password in (
        ("/sign-in", None, ""),
        ("/repositories/private/plans", None, ""),
        ("/", "ann", "wrong"),
    ):
        answer = guarded.get(path, account=account, password=password)
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Basic ")
        assert "You have to sign in" in answer.text
    signed_in = guarded.get("/sign-in", account="ann")
    assert (signed_in.status, signed_in.headers["location"]) == (303, "/")


def test_what_may_not_be_seen_is_refused_whether_it_is_there_or_not(samples: Samples, guarded: RunningServer) -> None:
    image = f"@{samples.secret}"
    for there, not_there in (
        ("/repositories/private/plans", "/repositories/private/other"),
        (f"/images/private/plans{image}", f"/images/private/other{image}"),
        (f"/images/private/plans{image}/files?path=/", f"/images/private/other{image}/files?path=/"),
        (f"/images/private/plans{image}/download?path=/etc/name", f"/images/private/other{image}/download?path=/"),
    ):
        first, second = guarded.get(there, account="ann"), guarded.get(not_there, account="ann")
        assert first.status == second.status == 403
        assert first.text.replace("plans", "other") == second.text
        assert guarded.get(there).status == 401
        assert guarded.get(there, account="root").status == 200


def test_an_image_cannot_be_reached_through_another_repository(samples: Samples, guarded: RunningServer) -> None:
    for part in ("", "/files?path=/", "/download?path=/etc/name"):
        assert guarded.get(f"/images/team/shop@{samples.secret}{part}").status == 404


def test_what_is_shared_with_hidden_images_is_told_as_a_sum(samples: Samples, guarded: RunningServer) -> None:
    path = f"/images/team/site@{samples.site}"
    with Store.open(samples.path, read_only=True) as store:
        base = store.images[samples.site].layers[0].size
    seen = {account: Document(guarded.page(path, account=account)) for account in (None, "ann", "root")}
    assert [row[0] for row in seen[None].rows("Whole layers")] == [
        "team/shop:1.0, team/shop:latest",
        "3 images outside of the repositories that you may see",
    ]
    assert [row[0] for row in seen["ann"].rows("Whole layers")][-1].startswith("1 image outside")
    assert not any("outside" in row[0] for row in seen["root"].rows("Whole layers"))
    sums = [one.attributes["value"] for one in seen[None].all("data") if one.inside("tbody")]
    assert sums[-1] == str(base), "a layer that three share counts once"
    for secret in ("private", "plans", "odd:1", samples.secret, samples.secret.short):
        assert secret not in guarded.page(path)


def test_other_repositories_with_an_image_are_named_to_those_who_may_see_them(
    samples: Samples, guarded: RunningServer
) -> None:
    path = f"/images/team/shop@{samples.shop}"
    assert "1 repository that you may not see" in guarded.page(path)
    assert "mirror" not in guarded.page(path)
    assert "mirror/shop" in Document(guarded.page(path, account="ann")).links()


def test_without_any_right_nothing_is_shown(closed: RunningServer) -> None:
    assert closed.get("/").status == 401
    text = closed.page("/", account="bob")
    assert "You may not see any repository yet" in text
    assert not Document(text).all("table") and "Ratio" not in Document(text).facts()


def test_the_style_sheet_is_for_everybody(closed: RunningServer) -> None:
    assert closed.get("/style.css").status == 200
