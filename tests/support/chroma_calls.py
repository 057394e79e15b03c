"""An engine that counts, and a client with a small limit; the work itself is that of the real ones."""

from __future__ import annotations

from typing import Any


class Counted:
    """An engine, and how many documents each call brought."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.sizes = engine, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def encode(self, model: str, items: Any, **keywords: Any) -> Any:
        """Encode, and count what are no queries."""
        if not keywords.get("is_query"):
            self.sizes.append(len(items))
        return self.engine.encode(model, items, **keywords)

    def score(self, *arguments: Any, **keywords: Any) -> Any:
        """Score."""
        return self.engine.score(*arguments, **keywords)

    def models(self) -> Any:
        """Return the engine's."""
        return self.engine.models()

    def describe(self, model: str) -> Any:
        """Return what the engine knows."""
        return self.engine.describe(model)


class LimitedClient:
    """A client whose server takes only so many records a call."""

    def __init__(self, client: Any, limit: int) -> None:
        self._client, self._limit = client, limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def get_max_batch_size(self) -> int:
        """Return the limit."""
        return self._limit
