"""Photos in their own mode, depth and format, with their metadata."""

from regionnorm.photo._file import Photo, check_target, read_photo, write_photo

__all__ = ["Photo", "check_target", "read_photo", "write_photo"]
