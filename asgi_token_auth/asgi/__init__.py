"""ASGI scopes and messages: what the middleware reads of a request, and what it adds to or gives as an answer."""
