"""A class with the attribute `only` has no other tests than these."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    others = [
        item for item in items if item.originalname not in getattr(item.cls, "only", (item.originalname,))
    ]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]
