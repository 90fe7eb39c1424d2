"""Files: read and written whole, named by format, photos and masks paired."""
