"""A key plugin: one cache entry a path and currency, whatever the query says.

What is imported must be imported at the top: there are no files when the plugin runs.
"""

from wit_world import exports
from wit_world.imports import types

import keys


class Manifest(exports.Manifest):
    def describe(self, config: str) -> types.Manifest:
        """`config` of the YAML, as JSON text. To refuse it: `raise Err("what is wrong")`, with
        `from componentize_py_types import Err`. What `derive` depends on is named here: exactly
        this is passed to it."""
        needs = types.KeyNeeds(
            method=False,
            host=True,
            path=True,
            query=types.QueryNeed_None_(),
            headers=[],
            cookies=["currency"],
        )
        return types.Manifest("{{name}}", "0.1.0", needs, None, types.Reads([], []))


class Key(exports.Key):
    def derive(self, inputs: types.KeyInputs) -> types.KeyDecision:
        """Must be pure: equal inputs are answered from memory, without a call."""
        cookies = {cookie.name: cookie.value for cookie in inputs.cookies}
        text, parts = keys.key(inputs.host or "", inputs.path or "", cookies)
        return types.KeyDecision_Key(types.CacheKey(text, parts, []))
