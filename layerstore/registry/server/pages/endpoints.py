"""How a page is answered: on a thread of those for pages, and with a page also where it ends in an error."""

from collections.abc import Awaitable, Callable
from functools import partial

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from layerstore.errors import LayerstoreError, NotFoundError
from layerstore.registry.protocol import ErrorCode
from layerstore.registry.server.pages.figures import figures_of
from layerstore.registry.server.pages.rendering import page
from layerstore.registry.server.problems import ProblemError, problem_of

Work = Callable[[Request], Response]

_TITLES = {
    400: "This request makes no sense",
    401: "You have to sign in",
    403: "You may not see this",
    404: "There is no such page",
    429: "Too many requests",
    503: "The registry cannot answer now",
}
_HINTS = {
    401: "Load the page again and give your name and password.",
    403: "Ask whoever runs this registry for the right to read it, or sign in under another name.",
    404: "It may have been deleted, or the address has a mistake. The overview has everything that you may see.",
}


def endpoint(work: Work) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that does its work, which may wait, on a thread."""

    async def answer(request: Request) -> Response:
        return await to_thread.run_sync(partial(_answer, work, request), limiter=figures_of(request).threads)

    return answer


def problem_page(request: Request, problem: ProblemError) -> Response:
    """A page that says what a request ended with."""
    values = {
        "title": _TITLES.get(problem.status, "Something went wrong"),
        "status": problem.status,
        "message": problem.message[:1].upper() + problem.message[1:] + ".",
        "hint": _HINTS.get(problem.status, "Go back to the overview, or try again later."),
    }
    headers = dict(problem.headers)
    if problem.status == 401:
        # Of what the registry takes, this is what a browser can give by itself.
        headers["WWW-Authenticate"] = 'Basic realm="layerstore", charset="UTF-8"'
    return page(request, "problem.html", values, status=problem.status, headers=headers)


def _answer(work: Work, request: Request) -> Response:
    try:
        return work(request)
    except ProblemError as problem:
        return problem_page(request, problem)
    except LayerstoreError as error:
        return problem_page(request, _problem_of(error))


def _problem_of(error: LayerstoreError) -> ProblemError:
    # An error of a path in an image is one of the operating system's, too: its text has a number and bytes in it.
    if isinstance(error, OSError) and isinstance(error.filename, bytes):
        path = error.filename.decode(errors="surrogateescape").lstrip("/")
        return ProblemError(404, ErrorCode.UNKNOWN, f"{error.strerror}: /{path}")
    if isinstance(error, NotFoundError):
        return ProblemError(404, ErrorCode.UNKNOWN, str(error))
    return problem_of(error)
