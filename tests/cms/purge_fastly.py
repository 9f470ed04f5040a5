"""PyPI's `fastly`, as it is: purge_fastly.py CALL. The pages have the tags `page` and their own path."""

import sys

import fastly
import resolve  # noqa: F401
from fastly.api import purge_api

configuration = fastly.Configuration(api_key={"token": "kkkkkkkk"})
with fastly.ApiClient(configuration) as client:
    api = purge_api.PurgeApi(client)
    calls = {
        "url": lambda: api.purge_single_url(cached_url="shop.test/a"),
        "whole-url": lambda: api.purge_single_url(cached_url="https://shop.test/a", fastly_soft_purge=1),
        "tag": lambda: api.purge_tag(service_id="shop", surrogate_key="/a"),
        "field": lambda: api.bulk_purge_tag(service_id="shop", surrogate_key="/a no-such-tag"),
        "body": lambda: api.bulk_purge_tag(service_id="shop", purge_response={"surrogate_keys": ["/a"]}),
        "all": lambda: api.purge_all(service_id="shop"),
    }
    told = calls[sys.argv[1]]()
    assert told.get("status") == "ok" or "/a" in told, told
