import json
import unittest

import feeds

CONFIG = {
    "feeds": {
        "news": {"upstream": "news", "path": "/feed.json"},
        "blog": {"upstream": "blog", "path": "/feed.json"},
    }
}


def item(name: str, day: str) -> dict:
    return {"id": name, "date_published": f"2026-01-{day}"}


class Feeds(unittest.TestCase):
    def setUp(self):
        self.config = feeds.read(json.dumps(CONFIG))

    def ids(self, **given) -> list[str]:
        return [item["id"] for item in feeds.merge(self.config, given)["items"]]

    def test_the_newest_comes_first(self):
        self.assertEqual(self.ids(news=[item("a", "01"), item("b", "03")], blog=[item("c", "02")]), ["b", "c", "a"])

    def test_an_item_in_both_feeds_is_there_once_and_says_whence(self):
        merged = feeds.merge(self.config, {"news": [item("a", "01")], "blog": [item("a", "01")]})
        self.assertEqual(merged, {"items": [{**item("a", "01"), "feed": "news"}]})

    def test_there_are_no_more_than_the_limit(self):
        config = feeds.read(json.dumps({**CONFIG, "limit": 2}))
        many = [item(str(n), f"{n:02}") for n in range(1, 9)]
        self.assertEqual(len(feeds.merge(config, {"news": many})["items"]), 2)

    def test_a_feed_that_did_not_come_is_named(self):
        self.assertEqual(feeds.merge(self.config, {"news": [], "blog": None})["missing"], ["blog"])

    def test_what_is_no_feed_did_not_come(self):
        for body in [b"", b"<html>", b"[]", b"{}", b'{"items": 1}', b"\xff"]:
            self.assertIsNone(feeds.items_of(self.config, body), body)
        self.assertEqual(feeds.items_of(self.config, b'{"items": [1, {"id": 2}]}'), [{"id": 2}])

    def test_a_wrong_configuration_is_explained(self):
        wrong = {
            "names with": {"feeds": {}},
            "feeds.a` has": {"feeds": {"a": {"upstream": "x"}}},
            "begins with /": {"feeds": {"a": {"upstream": "x", "path": "y"}}},
            "whole number": {"limit": 0},
            "unknown key `feed`": {"feed": {}},
        }
        for words, change in wrong.items():
            with self.assertRaisesRegex(ValueError, words):
                feeds.read(json.dumps({**CONFIG, **change}))


if __name__ == "__main__":
    unittest.main()
