"""The page's scripts, read without a browser."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

import regionnorm.web

SCRIPTS = sorted(Path(regionnorm.web.__file__).parent.glob("*/*.js"))
MEMBER = re.compile(r"^  ((?:static |async |get |set )*\w+)\(.*\) \{$", re.MULTILINE)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_class_has_two_members_of_a_name(path: Path) -> None:
    # The later one would silently take the other's place.
    for body in re.split(r"^(?:export )?class ", path.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        names = Counter(MEMBER.findall(body.split("\n}\n")[0]))
        assert [name for name, times in names.items() if times > 1] == [], body.split()[0]
