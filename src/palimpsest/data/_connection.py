"""Whether the Hugging Face hub can be reached, asked once and briefly."""

from __future__ import annotations

import importlib
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from palimpsest.errors import BadInput, told


def hub_folder(path: str, wanted: Sequence[str], sign: str | Sequence[str], expected: str, who: str = "path") -> Path:
    """A local folder as it is; else what was downloaded of a hub name, downloaded now where it was not before.

    wanted: patterns of the files to fetch. sign: a file, or one of several, by which a download is known to be whole. who: the
    setting, for errors. Raises BadInput for a path that is neither a folder nor could be a name, and where the hub has none or
    cannot be reached.
    """
    place = Path(path).expanduser()
    if path and place.is_dir():
        return place.resolve()
    if not path or path[0] in "./~" or path.count("/") > 1 or place.exists():
        got = "a file" if path and place.exists() else "no such folder"
        raise BadInput(path or who, got=got, expected=expected)
    signs = [sign] if isinstance(sign, str) else list(sign)
    hub = importlib.import_module("huggingface_hub")
    offline = hub.constants.HF_HUB_OFFLINE
    try:
        kept = Path(hub.snapshot_download(path, allow_patterns=list(wanted), local_files_only=True))
        if offline or any((kept / name).exists() for name in signs):
            return kept
    except (OSError, ValueError) as error:
        if offline:
            do = "unset HF_HUB_OFFLINE, or give a folder"
            raise BadInput(path, got="nothing downloaded", expected=expected, do=do) from error
    reach(hub.constants.ENDPOINT, path)
    try:
        return Path(hub.snapshot_download(path, allow_patterns=list(wanted)))
    except (OSError, ValueError) as error:
        do = "check the name, and whether it needs a login"
        raise BadInput(path, got=told(error), expected=expected, do=do) from error


def reach(endpoint: str, who: str) -> None:
    """Raises BadInput, as `who`, at once where there is no connection: the hub's own clients would try for half a minute."""
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=10):
            pass
    except urllib.error.HTTPError:
        pass  # it answers
    except OSError as error:
        expected = f"a local folder of that name, or a connection to {endpoint}"
        do = "connect, give a folder, or set HF_HUB_OFFLINE=1 to use what was downloaded before"
        reason = getattr(error, "reason", error)
        raise BadInput(who, got=f"no connection ({reason})", expected=expected, do=do) from None
