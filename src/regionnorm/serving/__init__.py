"""The service for programs: a photo and its mask in, the filled photo out, over HTTP."""

from regionnorm.serving.run import serve
from regionnorm.serving.service import ServiceOptions, build_service

__all__ = ["ServiceOptions", "build_service", "serve"]
