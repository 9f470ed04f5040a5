import unittest

import keys


class Keys(unittest.TestCase):
    def test_the_currency_is_a_part_of_the_key(self):
        key = keys.key("shop.example", "/tea", {"currency": "USD"})
        self.assertEqual(key, ("shop.example/tea", ["USD"]))

    def test_without_a_cookie_it_is_euros(self):
        self.assertEqual(keys.key("shop.example", "/tea", {})[1], ["EUR"])


if __name__ == "__main__":
    unittest.main()
