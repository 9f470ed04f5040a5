"""The pure part, without a word about the gateway, so that any Python can test it."""

import json
import re


def id_of(path_and_query: str) -> str | None:
    """The number at the end of the path: what goes into another path must be known."""
    found = re.fullmatch(r"/[^/]+/([0-9]+)", path_and_query.split("?")[0])
    return found[1] if found else None


def account(body: bytes) -> bytes:
    """The answer, made of what the user's API said."""
    user = json.loads(body)
    return json.dumps({"user": user}).encode()
