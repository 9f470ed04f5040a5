import json
import unittest

import account


class Account(unittest.TestCase):
    def test_the_number_at_the_end_of_the_path_names_the_user(self):
        self.assertEqual(account.id_of("/account/7?x=1"), "7")
        for path in ["/account", "/account/", "/account/..", "/account/7/8", "/account/7a"]:
            self.assertIsNone(account.id_of(path), path)

    def test_the_user_is_a_part_of_the_answer(self):
        answer = json.loads(account.account(b'{"name": "Ann"}'))
        self.assertEqual(answer["user"], {"name": "Ann"})


if __name__ == "__main__":
    unittest.main()
