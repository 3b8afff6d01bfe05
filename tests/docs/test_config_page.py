"""The reference of the configuration: no key is missing, none is left over, and it is current."""

from __future__ import annotations

from docs.config_page import MEANINGS, PAGE, keys, meanings, page, places
from tga_jax.config import base_config


def test_every_key_has_a_meaning_and_every_meaning_a_key() -> None:
    ours = set(keys(base_config().to_dict()))
    told = [
        place + name
        for section, texts in meanings().items()
        for place in places(section)
        for name in texts
        if name != "about"
    ]
    assert not ours - set(told), f"write what these keys mean into {MEANINGS}"
    assert not set(told) - ours, f"{MEANINGS} tells of keys that there are not"
    assert len(told) == len(set(told))


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m docs.config_page"


def test_meanings_are_sentences() -> None:
    for section, texts in meanings().items():
        for name, text in texts.items():
            assert text[0] in '"' or text[0].isupper() or text[0].isdigit(), (section, name)
            assert text.endswith("."), (section, name)
