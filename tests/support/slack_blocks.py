"""Slack's limits on a message, as https://docs.slack.dev/reference/block-kit states them, and our own: no
mention of anyone, and fewer than 10,000 characters in all.

    assert problems({"text": …, "blocks": […]}) == []
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["mentions", "problems", "texts"]

Found = Iterator[str]
MOST_BLOCKS, MOST_CHARACTERS = 50, 10_000
_MENTION = re.compile(r"<[!@#]")


def problems(body: Mapping[str, Any]) -> list[str]:
    """What Slack (or we) would not have; empty for a sound message."""
    return list(_message(body))


def texts(blocks: Any) -> list[str]:
    """Every text that blocks show, in order."""
    if isinstance(blocks, Mapping):
        own = [blocks["text"]] if isinstance(blocks.get("text"), str) else []
        return own + [text for value in blocks.values() for text in texts(value)]
    if isinstance(blocks, Sequence) and not isinstance(blocks, str):
        return [text for value in blocks for text in texts(value)]
    return []


def mentions(text: str) -> bool:
    """Whether Slack would notify somebody, or link a channel, where the text is markup."""
    return bool(_MENTION.search(text))


def _message(body: Mapping[str, Any]) -> Found:
    text, blocks = body.get("text"), body.get("blocks", [])
    if not text:
        yield "no text for notifications"
    elif len(text) >= MOST_CHARACTERS or mentions(text):
        yield f"text: {len(text)} characters, or it mentions somebody"
    if len(blocks) > MOST_BLOCKS:
        yield f"{len(blocks)} blocks"
    if sum(map(len, texts(blocks))) >= MOST_CHARACTERS:
        yield f"{sum(map(len, texts(blocks)))} characters in all"
    ids = [block["block_id"] for block in blocks if "block_id" in block]
    actions = [
        element["action_id"]
        for block in blocks
        for element in block.get("elements", [])
        if "action_id" in element
    ]
    if len(set(ids)) != len(ids) or len(set(actions)) != len(actions):
        yield f"not unique: {ids} {actions}"
    for number, block in enumerate(blocks):
        check = _BLOCKS.get(block.get("type", ""))
        found = check(block) if check else iter([f"no such block: {block.get('type')}"])
        yield from (f"block {number}: {problem}" for problem in found)
        if len(block.get("block_id", "")) > 255:
            yield f"block {number}: block_id"


def _keys(thing: Mapping[str, Any], needed: str, maybe: str = "") -> Found:
    missing = set(needed.split()) - thing.keys()
    unknown = thing.keys() - set(f"type block_id {needed} {maybe}".split())
    if missing or unknown:
        yield f"{thing.get('type')}: missing {missing or '-'}, unknown {unknown or '-'}"


def _text(thing: Any, longest: int, kinds: Sequence[str] = ("plain_text", "mrkdwn")) -> Found:
    if not isinstance(thing, Mapping) or thing.get("type") not in kinds:
        yield f"not a text of {kinds}: {thing}"
        return
    plain = thing["type"] == "plain_text"
    yield from _keys(thing, "text", "emoji" if plain else "verbatim")
    text = thing.get("text")
    if not isinstance(text, str) or not 1 <= len(text) <= longest:
        yield f"a text of {len(text) if isinstance(text, str) else text} characters, not 1 to {longest}"
    elif not plain and mentions(text):
        yield f"mentions somebody: {text[:80]}"


def _plain(thing: Any, longest: int) -> Found:
    return _text(thing, longest, ("plain_text",))


def _section(block: Mapping[str, Any]) -> Found:
    yield from _keys(block, "", "text fields accessory expand")
    if "text" not in block and "fields" not in block:
        yield "neither text nor fields"
    if "text" in block:
        yield from _text(block["text"], 3000)
    fields = block.get("fields", [])
    if len(fields) > 10:
        yield f"{len(fields)} fields"
    for field in fields:
        yield from _text(field, 2000)


def _header(block: Mapping[str, Any]) -> Found:
    yield from _keys(block, "text")
    yield from _plain(block.get("text"), 150)


def _context(block: Mapping[str, Any]) -> Found:
    yield from _keys(block, "elements")
    if not 1 <= len(block.get("elements", [])) <= 10:
        yield "1 to 10 elements"
    for element in block.get("elements", []):
        yield from _text(element, 2000)


def _actions(block: Mapping[str, Any]) -> Found:
    yield from _keys(block, "elements")
    if not 1 <= len(block.get("elements", [])) <= 25:
        yield "1 to 25 elements"
    for element in block.get("elements", []):
        yield from _button(element)


def _button(button: Mapping[str, Any]) -> Found:
    yield from _keys(button, "text action_id", "url value style confirm accessibility_label")
    if button.get("type") != "button":
        yield f"not a button: {button.get('type')}"
    yield from _plain(button.get("text"), 75)
    for name, longest in (("action_id", 255), ("url", 3000), ("value", 2000)):
        if name in button and not 1 <= len(button[name]) <= longest:
            yield f"{name} of {len(button[name])} characters"
    if "url" in button and not re.match(r"https?://[^/\s]+", button["url"]):
        yield f"no address: {button['url'][:80]}"
    if button.get("style", "primary") not in ("primary", "danger"):
        yield f"style {button['style']}"
    if "confirm" in button:
        confirm = button["confirm"]
        yield from _keys(confirm, "title text confirm deny", "style")
        yield from _plain(confirm.get("title"), 100)
        yield from _text(confirm.get("text"), 300)
        yield from _plain(confirm.get("confirm"), 30)
        yield from _plain(confirm.get("deny"), 30)


def _rich_text(block: Mapping[str, Any]) -> Found:
    yield from _keys(block, "elements")
    if not block.get("elements"):
        yield "no elements"
    for element in block.get("elements", []):
        yield from _keys(element, "elements", "border")
        if element.get("type") not in ("rich_text_section", "rich_text_quote", "rich_text_preformatted"):
            yield f"no such element: {element.get('type')}"
        for part in element.get("elements", []):
            yield from _keys(part, "text", "style")
            if part.get("type") != "text" or not part.get("text"):
                yield f"not a text: {part}"
            if part.get("style", {}).keys() - {"bold", "italic", "strike", "code"}:
                yield f"style {part['style']}"


def _divider(block: Mapping[str, Any]) -> Found:
    yield from _keys(block, "")


_BLOCKS: Mapping[str, Callable[[Mapping[str, Any]], Found]] = {
    "section": _section,
    "header": _header,
    "context": _context,
    "actions": _actions,
    "rich_text": _rich_text,
    "divider": _divider,
}
