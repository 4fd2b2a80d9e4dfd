"""The corpus's own web server."""

import urllib.error
import urllib.request

import pytest

from manifests.sample.serve import serve


def ask(proxy: str, url: str, **headers: str) -> tuple[int, bytes]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy}))
    with opener.open(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return answer.status, answer.read()


def test_any_host_s_path_is_looked_up_in_the_folder(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"0123456789")
    with serve(tmp_path) as proxy:
        assert ask(proxy, "http://sample.invalid/a.mp4") == (200, b"0123456789")
        assert ask(proxy, "http://sample.invalid/a.mp4", Range="bytes=4-") == (206, b"456789")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask(proxy, "http://sample.invalid/b.mp4")
        with pytest.raises(urllib.error.HTTPError, match="416"):
            ask(proxy, "http://sample.invalid/a.mp4", Range="bytes=99-")


def test_nothing_outside_the_folder_is_served(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("no")
    with serve(tmp_path / "in") as proxy, pytest.raises(urllib.error.HTTPError, match="404"):
        ask(proxy, "http://sample.invalid/%2e%2e/secret")


def test_the_port_closes_with_the_block(tmp_path):
    with serve(tmp_path) as proxy:
        pass
    with pytest.raises(OSError):
        ask(proxy, "http://sample.invalid/a")
