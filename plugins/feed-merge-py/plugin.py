"""Several JSON feeds, fetched at once, as one. See README.md."""

import json

from componentize_py_types import Err, Ok, Result
from wit_world import exports
from wit_world.imports import fetch, types
from wit_world.imports.fetch import FetchError, FetchRequest, FetchResponse

import feeds

config: feeds.Config


class Manifest(exports.Manifest):
    def describe(self, text: str) -> types.Manifest:
        global config
        try:
            config = feeds.read(text)
        except ValueError as error:
            raise Err(str(error)) from error
        # Of a loader's key the gateway takes care; the request's headers are not read.
        needs = types.KeyNeeds(False, False, False, types.QueryNeed_None_(), [], [])
        return types.Manifest("feed-merge-py", "1.0.0", needs, None, types.Reads([], []))


class Load(exports.Load):
    def load(self, request: types.Request, context: types.Context) -> types.LoadDecision:
        asked = [get(feed) for feed in config.feeds.values()]
        answers = zip(config.feeds, fetch.fetch_all(asked))
        got = {name: read(answer) for name, answer in answers}
        if all(items is None for items in got.values()):
            return types.LoadDecision_Error("no feed came")
        headers = [types.Header("content-type", b"application/json")]
        if None in got.values():
            # Half is better than nothing, but only for this one client.
            headers.append(types.Header("cache-control", b"no-store"))
        body = json.dumps(feeds.merge(config, got), ensure_ascii=False).encode()
        return types.LoadDecision_Response(types.Response(200, headers, body, None, []))


def get(feed: feeds.Feed) -> FetchRequest:
    accept = types.Header("accept", b"application/json")
    return FetchRequest(feed.upstream, "GET", feed.path, [accept], b"", None)


def read(answer: Result[FetchResponse, FetchError]) -> list[dict] | None:
    if isinstance(answer, Ok) and answer.value.status == 200:
        return feeds.items_of(config, answer.value.body)
    return None
