"""What all pages say."""

import pytest


@pytest.fixture(scope="session")
def model() -> dict[str, str]:
    return {"name": "hippocampus-2d", "version": "1.2", "sha256": "0123456789abcdef" * 4}
