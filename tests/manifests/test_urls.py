"""What is an address, and how much of one that is not may be shown."""

import pytest

from manifests.table import ManifestError, read
from manifests.urls import canonical


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
