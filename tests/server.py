"""A web server on the loopback that misbehaves on request, and remembers what it was asked.

with Web() as web:
    web.file("/a.mp4", data)
    web.status("/busy", 429, {"Retry-After": "2"})
    ...
    assert web.asked("/busy") == 3
"""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

Answer = Callable[["_Handler"], None]


@dataclass(frozen=True)
class Asked:
    """One request."""

    path: str  # with its query
    at_s: float  # of the epoch
    headers: dict[str, str] = field(default_factory=dict)


class Web:
    """Use as a context manager; routes may be added before and while it runs. A route is a path without its query."""

    def __init__(self) -> None:
        self._routes: dict[str, Answer] = {}
        self._asked: list[Asked] = []
        self._lock = threading.Lock()
        self._released = threading.Event()

    def __enter__(self) -> "Web":
        handler = type("Handler", (_Handler,), {"web": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`, without a slash at its end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def host(self) -> str:
        """`127.0.0.1:port`."""
        return self.url.removeprefix("http://")

    def requests(self, path: str | None = None) -> list[Asked]:
        """The requests so far, in order; of one path, or all."""
        with self._lock:
            return [asked for asked in self._asked if path is None or asked.path.partition("?")[0] == path]

    def asked(self, path: str | None = None) -> int:
        """How many requests there were."""
        return len(self.requests(path))

    def route(self, path: str, answer: Answer) -> str:
        """Answer a path by a function of the request's handler; returns the full URL."""
        self._routes[path] = answer
        return self.url + path

    def file(self, path: str, data: bytes | Path, *, kind: str = "video/mp4") -> str:
        """Bytes, whole or by range."""
        content = data.read_bytes() if isinstance(data, Path) else data
        return self.route(path, lambda handler: handler.send_file(content, kind))

    def folder(self, folder: Path, prefix: str = "") -> list[str]:
        """Every file below a folder, read when it is asked for; returns their URLs."""

        def sending(path: Path) -> Answer:
            return lambda handler: handler.send_file(path.read_bytes(), "video/mp4")

        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return [self.route(f"{prefix}/{path.relative_to(folder).as_posix()}", sending(path)) for path in files]

    def page(self, path: str, body: str, *, kind: str = "text/html; charset=utf-8") -> str:
        """A page; `{url}` in it becomes the server's own address."""
        return self.route(path, lambda handler: handler.send_file(body.replace("{url}", self.url).encode(), kind))

    def video_page(self, path: str, *sources: str, title: str = "A talk") -> str:
        """A page with one `<video>` element per source."""
        videos = "".join(f'<video controls><source src="{source}" type="video/mp4"></video>' for source in sources)
        return self.page(path, f"<html><head><title>{title}</title></head><body>{videos}</body></html>")

    def feed(self, path: str, *links: str, title: str = "A channel") -> str:
        """An RSS feed with one item per link."""
        items = "".join(f"<item><title>{link}</title><link>{link}</link></item>" for link in links)
        body = f'<?xml version="1.0"?><rss version="2.0"><channel><title>{title}</title>{items}</channel></rss>'
        return self.page(path, body, kind="application/rss+xml")

    def status(self, path: str, status: int, headers: dict[str, str] | None = None, *, times: int | None = None) -> str:
        """An error; after `times` of it, whatever the path answered before."""
        before = self._routes.get(path)
        count = 0

        def answer(handler: "_Handler") -> None:
            nonlocal count
            count += 1
            if times is not None and count > times and before is not None:
                before(handler)
            else:
                handler.send_status(status, headers or {})

        return self.route(path, answer)

    def redirect(self, path: str, target: str) -> str:
        """A redirection; to itself for a loop."""
        return self.status(path, 302, {"Location": target})

    def truncated(self, path: str, data: bytes, sent: int, *, times: int | None = None) -> str:
        """Announces all bytes and sends the first `sent`, then hangs up; no ranges. After `times`, all of them."""
        count = 0

        def answer(handler: "_Handler") -> None:
            nonlocal count
            count += 1
            if times is not None and count > times:
                handler.send_file(data, "video/mp4")
            else:
                handler.send_part(data, sent)

        return self.route(path, answer)

    def stalled(self, path: str, data: bytes, sent: int) -> str:
        """Announces all bytes, sends the first `sent`, then says nothing more and keeps the line open."""

        def answer(handler: "_Handler") -> None:
            handler.send_part(data, sent)
            handler.wfile.flush()
            self._released.wait(120)

        return self.route(path, answer)

    def dripping(self, path: str, data: bytes, *, bytes_per_s: int) -> str:
        """All bytes, slowly."""

        def answer(handler: "_Handler") -> None:
            handler.send_head(len(data), "video/mp4")
            step = max(1, bytes_per_s // 20)
            for at in range(0, len(data), step):
                handler.wfile.write(data[at : at + step])
                if self._released.wait(step / bytes_per_s):
                    return

        return self.route(path, answer)


class _Handler(BaseHTTPRequestHandler):
    web: Web
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = re.sub(r"^https?://[^/]+", "", self.path)  # a proxy is sent whole URLs
        with self.web._lock:
            self.web._asked.append(Asked(path, time.time(), dict(self.headers)))
        answer = self.web._routes.get(path.partition("?")[0])
        self.close_connection = True
        try:
            answer(self) if answer else self.send_status(404, {})
        except (BrokenPipeError, ConnectionResetError):
            return  # the client hung up

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args: object) -> None:
        """No log."""

    def send_head(self, length: int, kind: str, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Length": str(length), "Content-Type": kind, "Connection": "close", **(headers or {})
        }.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()

    def send_status(self, status: int, headers: dict[str, str]) -> None:
        self.send_head(0, "text/plain", status, headers)

    def send_part(self, data: bytes, sent: int) -> None:
        self.send_head(len(data), "video/mp4")
        self.wfile.write(data[:sent])

    def send_file(self, data: bytes, kind: str) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self.send_head(len(data), kind, 200, {"Accept-Ranges": "bytes"})
        else:
            first, last = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
            if first >= len(data):
                self.send_head(0, kind, 416, {"Content-Range": f"bytes */{len(data)}"})
                return
            total = len(data)
            data = data[first : last + 1]
            self.send_head(len(data), kind, 206, {"Content-Range": f"bytes {first}-{last}/{total}"})
        if self.command != "HEAD":
            self.wfile.write(data)
