"""What a running host hands to the frontend of the pack's texts in other languages."""

from __future__ import annotations

import json
import urllib.request

from launcher.makers import locales


def test_the_host_serves_every_text_of_every_node_in_chinese(host, object_info):
    with urllib.request.urlopen(f"{host.client.url}/i18n", timeout=30) as answer:
        served = json.load(answer)["zh"]
    source = locales.english(object_info)
    assert len(source) > 40
    assert locales.compare(source, served["nodeDefs"]).missing == ()
    assert {name: served["nodeDefs"][name] for name in source} == locales.read("zh")
    categories = locales.read("zh", "main.json")["nodeCategories"]
    assert categories.items() <= served["nodeCategories"].items()
