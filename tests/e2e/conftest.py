"""Fixtures of the end-to-end tests: a browser."""

from __future__ import annotations

from tests.support.browser import chromium, tabs

__all__ = ["chromium", "tabs"]
