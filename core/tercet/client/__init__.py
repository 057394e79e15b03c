"""The client side: `Client` and `AsyncClient`, which do over HTTP what `Engine` does in process.

`exchange` is one request with its retries and `calls` are the methods, both as generators that yield what is to be done
(send this, pause so long) and do nothing themselves; the two clients are the shells that do it.
"""

from tercet.client.async_client import AsyncClient
from tercet.client.sync_client import Client

__all__ = ["AsyncClient", "Client"]
