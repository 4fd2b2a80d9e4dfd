"""What is an address, and how much of one that is not may be shown."""

import pytest

from manifests.records import Video
from manifests.table import ManifestError, read
from manifests.urls import canonical, loose


@pytest.mark.parametrize("password", ["S3Cret", "S3Cret" * 20])
def test_a_password_in_an_address_keeps_its_letters_and_may_be_longer_than_a_host(password):
    assert canonical(f"https://Anna:{password}@Example.ORG/A.mp4") == f"https://Anna:{password}@example.org/A.mp4"


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("https://anna:s3cret@h.invalid:99999/b", "'https://***@h.invalid:99999/b' cannot be an address: Port out of"),
        ("https://anna:s3/cret@h.invalid/b", "'https://***@h.invalid/b' cannot be an address: Port could not"),
        ("https://anna:s3cret@h\u2100.invalid/b", "cannot be an address: netloc .* contains invalid characters"),
        ("https://anna:s3cret@h\0.invalid/b", "cannot be an address: it holds what is not UTF-8, or a NUL"),
        ("a,https://anna:s3cret@h.invalid/b", "one address a line"),
    ],
)
def test_an_address_that_is_refused_is_shown_without_who_logs_in_at_it(tmp_path, address, why):
    (tmp_path / "v.txt").write_text(f"{address}\n")
    with pytest.raises(ManifestError, match=why.replace("//***", r"//\*\*\*")) as caught:
        read(str(tmp_path / "v.txt"))
    assert not any(secret in str(caught.value) for secret in ("anna", "s3"))


@pytest.mark.parametrize("shape", ["watch/", "e/"])
def test_addresses_that_older_stores_have_as_they_stand_keep_their_ids_and_are_known_loosely(shape):
    url = f"https://www.youtube.com/{shape}abcdefghijk"
    assert Video.of(canonical(url)).id == Video.of(url).id
    assert loose(url) == loose("https://youtu.be/abcdefghijk")


@pytest.mark.parametrize("text", ["https://h:99999/a", "https://[1/a", "s3://bucket/a.mp4", "rtmp://h/a"])
def test_what_is_no_address_of_the_web_is_its_own_key(text):
    assert loose(text) == text
