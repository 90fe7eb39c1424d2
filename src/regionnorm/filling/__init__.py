"""Photos in, filled photos out."""
