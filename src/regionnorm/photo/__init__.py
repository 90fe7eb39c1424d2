"""Photos in their own mode, depth and format, with their metadata."""

from regionnorm.photo._colours import luma as luma
from regionnorm.photo.file import Photo as Photo
from regionnorm.photo.file import check_target as check_target
from regionnorm.photo.file import read_photo as read_photo
from regionnorm.photo.file import write_photo as write_photo
