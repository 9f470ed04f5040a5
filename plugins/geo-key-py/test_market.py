import json
import unittest

import market

CONFIG = {"header": "CF-IPCountry", "markets": {"dach": ["DE", "at", "CH"], "uk": ["GB"]}}


class Market(unittest.TestCase):
    def setUp(self):
        self.config = market.read(json.dumps(CONFIG))

    def test_countries_of_a_market_share_it(self):
        for country in ["DE", "AT", "ch", " de "]:
            self.assertEqual(market.market_of(self.config, country), "dach")

    def test_others_have_the_default(self):
        for country in ["FR", "", None, "XX"]:
            self.assertEqual(market.market_of(self.config, country), "world")

    def test_the_header_is_asked_for_in_lower_case(self):
        self.assertEqual(self.config.header, "cf-ipcountry")

    def test_a_wrong_configuration_is_explained(self):
        wrong = {
            "two letters": {"markets": {"a": ["DEU"]}},
            "quote it": {"markets": {"nordics": [False]}},
            "two markets": {"markets": {"a": ["DE"], "b": ["de"]}},
            "unknown key `market`": {"market": 1},
            "names with lists": {"markets": {}},
            "a list": {"markets": {"a": "DE"}},
        }
        for words, change in wrong.items():
            with self.assertRaisesRegex(ValueError, words):
                market.read(json.dumps({**CONFIG, **change}))


if __name__ == "__main__":
    unittest.main()
