"""The pure part, without a word about the gateway, so that any Python can test it."""


def key(host: str, path: str, cookies: dict[str, str]) -> tuple[str, list[str]]:
    """The URL that a response is stored under, and what parts its variants."""
    return host + path, [cookies.get("currency", "EUR")]
