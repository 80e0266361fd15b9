"""Who may see the page: whoever has the link that `geomim view` printed, and nobody through another site's name."""

import secrets
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost", "[::1]")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
REFUSED = "This page opens with the link that `geomim view` printed, which has a token in it."


class Guard:
    """Lets requests pass that name this machine as their host and bring the token: in the link, or in the cookie that
    the link leaves.

    A page of another site may send a browser here under a name of its own (DNS rebinding): the host is looked at first.
    Any port will do, that of an SSH tunnel, too.
    """

    def __init__(self, app: ASGIApp, token: str, cookie: str):
        self._app, self._token, self._cookie = app, token, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return None  # no page of ours opens a web socket: the server closes it
        answer = self._answer(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((n.encode(), v.encode()) for n, v in HEADERS.items())]
            await send(message)

        await (answer or self._app)(scope, receive, send_with_headers)

    def _answer(self, scope: Scope) -> Response | None:
        """What is answered in place of the page; None where the request may pass."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if (host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host).lower() not in HOSTS:
            return PlainTextResponse(f"This page is at {HOSTS[0]} alone, not at another name.", 403)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if self._is_token(value for name, value in query if name == "token"):
            if scope["path"] != "/":
                return None
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            answer = RedirectResponse("/?" + rest if rest else "/", 303)  # so that the token is in no address bar
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
            answer.headers["Cache-Control"] = "no-store"
            return answer
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        if self._cookie in cookies and self._is_token([cookies[self._cookie].value]):
            return None
        return PlainTextResponse(REFUSED, 403, {"Cache-Control": "no-store"})

    def _is_token(self, words: Iterable[str]) -> bool:
        return any(secrets.compare_digest(word.encode(), self._token.encode()) for word in words)
