"""One cache entry a market, not one a country. See README.md."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.types import (
    CacheKey,
    KeyDecision,
    KeyDecision_Key,
    KeyInputs,
    KeyNeeds,
    QueryNeed_Whole,
    Reads,
)
from wit_world.imports import types

import market

config: market.Config


class Manifest(exports.Manifest):
    def describe(self, text: str) -> types.Manifest:
        global config
        try:
            config = market.read(text)
        except ValueError as error:
            raise Err(str(error)) from error
        needs = KeyNeeds(
            method=False,
            host=True,
            path=True,
            query=QueryNeed_Whole(),
            headers=[config.header],
            cookies=[],
        )
        return types.Manifest("geo-key-py", "1.0.0", needs, None, Reads([], []))


class Key(exports.Key):
    def derive(self, inputs: KeyInputs) -> KeyDecision:
        query = f"?{inputs.query}" if inputs.query else ""
        country = inputs.headers[0].value if inputs.headers else None
        url = f"{inputs.host}{inputs.path}{query}"
        return KeyDecision_Key(CacheKey(url, [f"market={market.market_of(config, country)}"], []))
