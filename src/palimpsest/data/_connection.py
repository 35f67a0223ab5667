"""Whether the Hugging Face hub can be reached, asked once and briefly."""

from __future__ import annotations

import urllib.error
import urllib.request

from palimpsest.errors import BadInput


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
