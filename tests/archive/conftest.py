"""Every test of archives twice: with the model of the merged tree in memory, and on disk."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cowshed.archive import directories


@pytest.fixture(autouse=True, scope="session", params=["in-memory", "on-disk"])
def _where_the_model_is(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "on-disk":
            patch.setattr(directories, "_NEAR", 1)
        yield
