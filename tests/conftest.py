"""Every annotation of the package is checked at run time while the tests run."""

from __future__ import annotations

from jaxtyping import install_import_hook

install_import_hook("palimpsest", "beartype.beartype")

import os  # noqa: E402
import socket  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import hypothesis  # noqa: E402
import matplotlib  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from palimpsest.data.digits import Digits  # noqa: E402
from palimpsest.task import Classification  # noqa: E402
from palimpsest.types import Split  # noqa: E402

matplotlib.use("Agg")
hypothesis.settings.register_profile("steady", deadline=None, max_examples=30)  # machines differ; time is no property
hypothesis.settings.load_profile("steady")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> Split:
    return Digits().load()


@pytest.fixture(scope="session")
def digits_task(digits: Split) -> Classification:
    return Classification.of(digits)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any, **kwargs: Any) -> Any:
        raise OSError("the network is blocked in this test")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket, "create_connection", refused)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with the real data sets of the slow tests."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PALIMPSEST_DATA", default))
    if not folder.exists():
        pytest.skip(f"data missing: {folder} (set PALIMPSEST_DATA)")
    return folder
