"""A web server for a folder of videos, on loopback, for as long as a run needs it.

It is asked as an HTTP proxy: whatever host a URL names, its path is looked up in the folder. So the corpus has
addresses (http://sample.invalid/...) that stay the same while the port changes from run to run.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copyfileobj
from urllib.parse import urlsplit

CORPUS = Path(__file__).parent / "corpus"


@contextmanager
def serve(folder: Path = CORPUS) -> Iterator[str]:
    """Serve a folder on a free port of 127.0.0.1; yields the proxy's URL. Threads end with the block."""
    with _Server(("127.0.0.1", 0), partial(_Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up in the middle (yt-dlp does, having read the headers) is no news."""


class _Handler(SimpleHTTPRequestHandler):
    """The library's file handler, with proxy requests (RFC 9112, 3.2.2) and byte ranges of the form "bytes=N-"."""

    protocol_version = "HTTP/1.1"

    def translate_path(self, path: str) -> str:
        return super().translate_path(urlsplit(path).path)

    def do_GET(self) -> None:
        start = self._range_start()
        file = Path(self.translate_path(self.path))
        if start is None or not file.is_file():
            super().do_GET()
            return
        size = file.stat().st_size
        if start >= size:
            self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            return
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", self.guess_type(str(file)))
        self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        with file.open("rb") as f:
            f.seek(start)
            copyfileobj(f, self.wfile)

    def _range_start(self) -> int | None:
        wanted = self.headers.get("Range", "")
        first = wanted.removeprefix("bytes=").removesuffix("-")
        return int(first) if wanted.startswith("bytes=") and wanted.endswith("-") and first.isdigit() else None

    def log_message(self, *_: object) -> None:
        """Silence: the run has a display of its own."""
