"""The pure part, without a word about the gateway: several JSON feeds as one."""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Feed:
    upstream: str
    path: str


@dataclass(frozen=True)
class Config:
    feeds: dict[str, Feed]
    items: str
    """The member of a feed that holds its list."""
    id: str
    """The member of an item that names it: of two with the same value the first stays."""
    newest: str | None
    """The member of an item to sort by, the largest first; unset keeps the order."""
    limit: int


def read(text: str) -> Config:
    """Checks the configuration; raises ValueError with what is wrong."""
    given = json.loads(text)
    unknown = given.keys() - {"feeds", "items", "id", "newest", "limit"}
    if unknown:
        raise ValueError(f"unknown key `{min(unknown)}`")
    feeds = given.get("feeds")
    if not isinstance(feeds, dict) or not feeds:
        raise ValueError("`feeds` are names with an `upstream` and a `path`")
    limit = given.get("limit", 50)
    if not isinstance(limit, int) or limit < 1:
        raise ValueError("`limit` is a whole number from 1")
    return Config(
        {name: read_feed(name, feed) for name, feed in feeds.items()},
        given.get("items", "items"),
        given.get("id", "id"),
        given.get("newest", "date_published"),
        limit,
    )


def read_feed(name: str, feed: object) -> Feed:
    if not isinstance(feed, dict) or feed.keys() != {"upstream", "path"}:
        raise ValueError(f"`feeds.{name}` has an `upstream` and a `path`")
    if not str(feed["path"]).startswith("/"):
        raise ValueError(f"`feeds.{name}.path` begins with /")
    return Feed(str(feed["upstream"]), str(feed["path"]))


def items_of(config: Config, body: bytes) -> list[dict] | None:
    """The items of a feed; None when it is no such feed."""
    try:
        items = json.loads(body).get(config.items)
    except (ValueError, AttributeError):
        return None
    if not isinstance(items, list):
        return None
    return [item for item in items if isinstance(item, dict)]


def merge(config: Config, feeds: dict[str, list[dict] | None]) -> dict:
    """One feed; `missing` names those that did not come."""
    merged: dict[str, dict] = {}
    for name, items in feeds.items():
        for item in items or []:
            # As JSON: 1 and "1" are two, and a list can be a name too.
            merged.setdefault(json.dumps(item.get(config.id)), {**item, "feed": name})
    items = list(merged.values())
    if config.newest:
        items.sort(key=lambda item: str(item.get(config.newest, "")), reverse=True)
    missing = [name for name, feed in feeds.items() if feed is None]
    return {config.items: items[: config.limit], **({"missing": missing} if missing else {})}
