"""The web app: a page with a brush, and the same service for programs."""

from regionnorm.web.server import AppOptions, serve

__all__ = ["AppOptions", "serve"]
