"""PyPI's `cloudflare`, as it is: purge_cloudflare.py CALL. The pages have the tags `page` and their own path."""

import sys

import resolve  # noqa: F401
from cloudflare import Cloudflare

purges = {
    "files": {"files": ["http://shop.test/a"]},
    "headers": {"files": [{"url": "https://shop.test/a", "headers": {"CF-Device-Type": "mobile"}}]},
    "tags": {"tags": ["/a"]},
    "prefixes": {"prefixes": ["shop.test/a"]},
    "hosts": {"hosts": ["shop.test"]},
    "all": {"purge_everything": True},
}
told = Cloudflare(api_token="kkkkkkkk", max_retries=0).cache.purge(zone_id="zone", **purges[sys.argv[1]])
assert told.id, told
