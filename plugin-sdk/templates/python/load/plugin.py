"""A loader: `/account/7` is a user's JSON, fetched from the upstream `shop`, in an answer of
our own. What can be tested without a gateway stands in account.py.

What is imported must be imported at the top: there are no files when the plugin runs.
"""

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import fetch, types

import account


class Manifest(exports.Manifest):
    def describe(self, config: str) -> types.Manifest:
        """`config` of the YAML, as JSON text. To refuse it: `raise Err("what is wrong")`. `load`
        gets the headers and cookies that are named in `Reads`."""
        no_key = types.KeyNeeds(False, False, False, types.QueryNeed_None_(), [], [])
        reads = types.Reads(headers=[], cookies=[])
        return types.Manifest("{{name}}", "0.1.0", no_key, None, reads)


class Load(exports.Load):
    def load(self, request: types.Request, context: types.Context) -> types.LoadDecision:
        """What is returned is cached like an origin's response; `context` has the deadline."""
        user_id = account.id_of(request.path_and_query)
        if user_id is None:
            return types.LoadDecision_Absent()
        accept = types.Header("accept", b"application/json")
        asked = fetch.FetchRequest("shop", "GET", f"/api/user/{user_id}", [accept], b"", None)
        try:
            user = fetch.fetch(asked)
        except Err as error:
            why = type(error.value).__name__  # FetchError_Timeout and its like
            return types.LoadDecision_Error(f"the user's API: {why}")
        if user.status == 404:
            return types.LoadDecision_Absent()
        if user.status != 200:
            return types.LoadDecision_Error(f"the user's API answered with status {user.status}")
        headers = [types.Header("content-type", b"application/json")]
        body = account.account(user.body)
        ttl_ms, tags = 10_000, [f"user-{user_id}"]
        return types.LoadDecision_Response(types.Response(200, headers, body, ttl_ms, tags))
