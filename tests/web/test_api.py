"""What the page asks the running app for: photos, masks, fills, many of them, and who may ask."""

from __future__ import annotations

import asyncio
import io
import json
import os
import tempfile
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from runpy import run_path
from typing import Any, cast

import httpx
import numpy as np
import pytest
from PIL import Image

from regionnorm.filling.inpainter import Inpainter
from regionnorm.stopping import stop_if_asked
from regionnorm.web.api import PageApi
from regionnorm.web.batches import _Batch, _Masks, _Sent
from regionnorm.web.server import AppOptions, running

Maker = Callable[..., Image.Image]
Lines = list[dict[str, Any]]

stripping_proxy = run_path(str(Path(__file__).with_name("proxy.py")))["stripping_proxy"]


@pytest.fixture(scope="module")
def inpainter(small_weights: Path) -> Inpainter:
    return Inpainter(small_weights)


@pytest.fixture(scope="module")
def address(inpainter: Inpainter) -> Iterator[str]:
    with running(inpainter, AppOptions(port=0, max_megapixels=0.05)) as (_, url):
        yield url


class Page:
    """What the page's script does, without a browser."""

    def __init__(self, address: str, **options: Any) -> None:
        self.http = httpx.Client(base_url=f"{address.rstrip('/')}/page/", timeout=120, **options)
        self.visitor = ""

    def __enter__(self) -> Page:
        self.visitor = self.http.post("visitors").json()["visitor"]
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def get(self, path: str) -> httpx.Response:
        return self.http.get(f"{self.visitor}/{path}".rstrip("/"))

    def post(self, path: str, content: bytes = b"") -> httpx.Response:
        return self.http.post(f"{self.visitor}/{path}", content=content)

    def open(self, name: str, image: Image.Image) -> dict[str, Any]:
        told: dict[str, Any] = self.post(f"photos?name={name}", png(image)).json()
        return told

    def fill(self, picture: dict[str, Any], box: tuple[int, int, int, int]) -> Lines:
        left, top, right, bottom = box
        white = png(Image.new("RGB", (right - left, bottom - top), "white"))
        return lines(self.post(f"pictures/{picture['number']}/fills?left={left}&top={top}", white))


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    with Page(address) as made:
        yield made


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def lines(answer: httpx.Response) -> Lines:
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def image_of(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200
    return Image.open(io.BytesIO(answer.content))


def pixels(image: Image.Image) -> Any:
    return np.asarray(image.convert("RGB"))


# --- one photo -----------------------------------------------------------------------------------


def test_photo_goes_in_and_its_fill_comes_out_whole_and_as_a_patch(
    page: Page, make_photo: Maker, inpainter: Inpainter
) -> None:
    photo = make_photo(90, 60)
    picture = page.open("a photo.png", photo)
    assert (picture["name"], picture["width"], picture["canvas"]) == ("a photo.png", 90, [90, 60])
    told = page.fill(picture, (20, 10, 50, 30))
    assert {line["state"] for line in told[:-1]} <= {"waiting", "running"}
    assert all(line["ahead"] == 0 and 0 <= line["done"] <= 1 for line in told[:-1])
    filled = told[-1]["picture"]
    assert (told[-1]["state"], filled["box"]) == ("done", [20, 10, 50, 30])
    hole = np.zeros((60, 90), bool)
    hole[10:30, 20:50] = True
    expected = np.asarray(inpainter(photo, hole))
    saved = page.get(f"pictures/{filled['number']}/file")
    assert saved.headers["content-disposition"].endswith("''a%20photo-filled.png")
    assert (pixels(image_of(saved)) == expected).all()
    shown = image_of(page.get(f"pictures/{filled['number']}/patch"))
    assert (pixels(shown) == expected[10:30, 20:50]).all()
    kept = page.get("").json()
    assert [one["name"] for one in kept["pictures"]] == ["a photo-filled.png", "a photo.png"]


def test_photo_grows_by_what_is_asked_for_again_and_again(page: Page, make_photo: Maker) -> None:
    photo = make_photo(90, 60)
    picture = page.open("photo.png", photo)
    told = lines(page.post(f"pictures/{picture['number']}/fills?grow=10,0,20,5"))
    grown = told[-1]["picture"]
    assert (grown["width"], grown["height"], grown["box"]) == (120, 65, None)
    assert grown["frame"] == [10, 0, 100, 60] and grown["parent"] == picture["number"]
    result = pixels(image_of(page.get(f"pictures/{grown['number']}/file")))
    assert (result[:60, 10:100] == pixels(photo)).all()
    assert (result[:, :10] != 0).any() and (result[60:] != 0).any()
    # On from there, an object with it; where the photo lies in it is known all the same.
    white = png(Image.new("RGB", (20, 10), "white"))
    address = f"pictures/{grown['number']}/fills?left=30&top=20&grow=0,7,0,0"
    again = lines(page.post(address, white))[-1]["picture"]
    assert again["frame"] == [10, 7, 100, 67]
    after = pixels(image_of(page.get(f"pictures/{again['number']}/file")))
    same = (after[7:] == result).all(axis=2)
    assert not same[20:30, 30:50].all()
    same[20:30, 30:50] = True
    assert same.all()
    patch = page.get(f"pictures/{again['number']}/patch")
    assert patch.status_code == 404 and page.get(f"pictures/{again['number']}/small").is_success
    looks = lines(page.post(f"pictures/{again['number']}/regions"))[-1]
    assert "RN-L layers" in looks["summary"]


def test_growth_that_cannot_be_is_refused_before_the_line(page: Page, make_photo: Maker) -> None:
    number = page.open("photo.png", make_photo(100, 60))["number"]
    for grow, words in (
        ("1,2,3", "give pixels for left"),
        ("-1,0,0,0", "give pixels for left"),
        ("101,0,0,0", "at most 100"),
        ("100,60,100,60", "the photo would grow to 300x180"),
        ("0,0,0,0", "no PNG"),
    ):
        answer = page.post(f"pictures/{number}/fills?grow={grow}")
        assert answer.status_code == 400 and words in answer.json()["error"], grow


def test_gray_of_the_page_blends_photo_and_fill(page: Page, make_photo: Maker) -> None:
    photo = make_photo(90, 60)
    number = page.open("photo.png", photo)["number"]
    levels = np.zeros((60, 90), np.uint8)
    levels[10:50, 20:70] = 255
    hard = lines(page.post(f"pictures/{number}/fills?left=0&top=0", png(Image.fromarray(levels))))
    levels[10:50, 60:70] = 128
    soft = lines(page.post(f"pictures/{number}/fills?left=0&top=0", png(Image.fromarray(levels))))
    made = [
        pixels(image_of(page.get(f"pictures/{told[-1]['picture']['number']}/file"))).astype(int)
        for told in (hard, soft)
    ]
    there = np.s_[10:50, 60:70]
    between = pixels(photo).astype(int)[there] * 127 / 255 + made[0][there] * 128 / 255
    assert abs(made[1][there] - between).max() <= 1
    levels[:] = 128
    levels[:2] = 255
    levels[-1] = 0
    most = page.post(f"pictures/{number}/fills?left=0&top=0", png(Image.fromarray(levels)))
    assert most.status_code == 400 and "use a harder brush" in most.json()["error"]


def test_what_the_page_sends_wrongly_is_answered_with_one_line(
    page: Page, address: str, make_photo: Maker
) -> None:
    picture = page.open("photo.png", make_photo(60, 40))["number"]
    answers = {
        page.post("photos?name=x.png", b"no photo"): (400, "x.png is no image"),
        page.post("photos?name=x.png"): (400, "x.png is empty"),
        page.post("photos?name=x.png", bytes(400_001)): (413, "x.png has more than 0 MB"),
        page.post("photos?name=x.png", png(Image.new("L", (400, 300)))): (400, "400x300"),
        page.post(f"pictures/{picture}/fills", b"no mask"): (400, "no PNG"),
        page.post(f"pictures/{picture}/fills?left=x", b""): (400, "left is 'x'"),
        page.post(f"pictures/{picture}/selections?grow=much"): (400, "grow is 'much'"),
        page.post(f"pictures/{picture}/selections?box=1,2"): (400, "box is '1,2'"),
        page.post(f"pictures/{picture}/selections", png(Image.new("L", (9, 9)))): (
            400,
            "nothing is painted yet",
        ),
        page.post(f"pictures/{picture}/masks?rule=color:%23fff"): (400, "not known here"),
        page.post(f"pictures/{picture}/masks?name=m.png", png(Image.new("L", (9, 9)))): (
            400,
            "the mask is 9x9 but photo.png is 60x40",
        ),
        page.post("pictures/none/fills", b""): (404, "open the photo again"),
        page.post("examples/99"): (404, "there are 4 examples"),
        page.get("jobs/none"): (404, "start it again"),
        page.get("masks/none"): (404, "load it again"),
        page.get(f"pictures/{picture}/patch"): (404, "not patch"),
        page.http.get("nobody"): (404, "reload the page"),
        page.http.get("static/1/main.py"): (404, "no file"),
    }
    for answer, (status, words) in answers.items():
        assert (answer.status_code, list(answer.json())) == (status, ["error"])
        assert words in answer.json()["error"]
        assert "\n" not in answer.json()["error"]
        assert os.environ["GRADIO_TEMP_DIR"] not in answer.text
    failed = lines(page.post(f"pictures/{picture}/variants"))[-1]
    assert (failed["state"], "nothing is filled yet" in failed["error"]) == ("failed", True)


def test_nobody_reaches_what_is_others(address: str, make_photo: Maker) -> None:
    with Page(address) as one, Page(address) as two:
        number = one.open("photo.png", make_photo(60, 40))["number"]
        assert two.get(f"pictures/{number}/file").status_code == 404
        assert two.get("").json() == {"pictures": [], "jobs": []}


def test_names_of_photos_lead_nowhere(page: Page, make_photo: Maker) -> None:
    for given, name in {
        "../../etc/x.png": "x.png",
        "..\\x.png": "x.png",
        "a/b:c?.png": "b_c_.png",
        "": "photo.png",
        f"{'ü' * 200}.png": f"{'ü' * 60}.png",
    }.items():
        answer = page.http.post(
            f"{page.visitor}/photos", params={"name": given}, content=png(make_photo(30, 20))
        )
        assert answer.json()["name"] == name


# --- many at once, and those who leave -----------------------------------------------------------


class Slow:
    """Fills that last until they are stopped or let go."""

    def __init__(self) -> None:
        self.started, self.go_on, self.stopped = (threading.Event() for _ in range(3))

    def __call__(self, image: Image.Image, mask: object) -> Image.Image:
        self.started.set()
        try:
            while not self.go_on.wait(0.01):
                stop_if_asked()
        except Exception:
            self.stopped.set()
            raise
        return image


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def slow_address(slow: Slow) -> Iterator[str]:
    with running(slow, AppOptions(port=0)) as (_, url):  # type: ignore[arg-type]
        yield url
        slow.go_on.set()


@contextmanager
def filling(page: Page, picture: dict[str, Any]) -> Iterator[Iterator[dict[str, Any]]]:
    """A fill of a few pixels, whose lines are read as they come."""
    path = f"{page.visitor}/pictures/{picture['number']}/fills?left=4&top=4"
    white = png(Image.new("L", (9, 9), 255))
    with page.http.stream("POST", path, content=white) as answer:
        yield (json.loads(line) for line in answer.iter_lines())


def test_leaving_and_cancelling_let_the_next_one_begin_within_a_second(
    slow: Slow, slow_address: str, make_photo: Maker
) -> None:
    with Page(slow_address) as gone, Page(slow_address) as two, Page(slow_address) as three:
        pictures = [one.open("photo.png", make_photo(60, 40)) for one in (gone, two, three)]
        with filling(gone, pictures[0]) as first:
            while next(first)["state"] != "running":
                pass
            with filling(two, pictures[1]) as second:
                told = next(second)
                assert (told["state"], told["ahead"]) == ("waiting", 1)
                gone.http.close()
                began = time.monotonic()
                first.close()  # type: ignore[attr-defined]
                told = next(line for line in second if line["state"] == "running")
                assert time.monotonic() - began < 1.5
                with filling(three, pictures[2]) as third:
                    assert next(third)["ahead"] == 1
                    two.http.delete(f"{two.visitor}/jobs/{told['job']}")
                    assert list(second)[-1]["state"] == "cancelled"
                    slow.go_on.set()
                    assert list(third)[-1]["state"] == "done"


def test_page_that_is_loaded_anew_finds_its_fill(
    slow: Slow, slow_address: str, make_photo: Maker
) -> None:
    with Page(slow_address) as page:
        picture = page.open("photo.png", make_photo(60, 40))
        with filling(page, picture) as told:
            job = next(told)["job"]
        assert page.get("").json()["jobs"] == [job]
        # Another photo is opened meanwhile; the fill's own files stay.
        for _ in range(30):
            page.open("other.png", make_photo(20, 20))
        slow.go_on.set()
        assert lines(page.get(f"jobs/{job}"))[-1]["picture"]["name"] == "photo-filled.png"


def test_program_that_leaves_lets_the_next_one_begin(
    slow: Slow, slow_address: str, tmp_path: Path, make_photo: Maker
) -> None:
    with httpx.Client(base_url=slow_address, timeout=60) as http, Page(slow_address) as page:
        paths = http.post(
            "gradio_api/upload", files=[("files", png(make_photo(40, 30))) for _ in range(2)]
        ).json()
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in paths]
        data[1] = dict(data[0])
        event = http.post("gradio_api/call/inpaint", json={"data": data}).json()["event_id"]
        picture = page.open("photo.png", make_photo(60, 40))
        if slow.started.wait(1):
            with http.stream("GET", f"gradio_api/call/inpaint/{event}"):
                pass
            assert slow.stopped.wait(20)
        slow.go_on.set()
        with filling(page, picture) as told:
            assert list(told)[-1]["state"] == "done"


# --- finding what should go ----------------------------------------------------------------------


def test_one_visitors_finds_hold_up_no_photo_no_fill_and_no_others_find(
    address: str, make_photo: Maker, search: Any
) -> None:
    with Page(address) as many, Page(address) as other, ThreadPoolExecutor(12) as pool:
        number = many.open("many.png", make_photo(60, 40))["number"]
        ask = f"pictures/{number}/masks?rule=auto:scratches"
        asked = [pool.submit(many.post, ask) for _ in range(12)]
        search.seen(1)
        other.http.timeout = httpx.Timeout(20)
        photo = other.open("photo.png", make_photo(50, 40))
        assert other.fill(photo, (5, 5, 20, 20))[-1]["state"] == "done"
        found = pool.submit(other.post, f"pictures/{photo['number']}/masks?rule=auto:text")
        search.seen(2)
        search.go_on.set()
        assert found.result(20).status_code == 200
        answers = [one.result(20) for one in asked]
    # One at work and the latest: whatever waited between was told so and never looked at.
    assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 10
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert "one thing after the other" in refused.json()["error"]
    assert sorted(search.sizes) == [(50, 40), (60, 40), (60, 40)]


def test_find_of_one_who_has_left_is_not_begun(
    address: str, make_photo: Maker, search: Any
) -> None:
    with Page(address) as one, Page(address) as two, Page(address) as gone, Page(address) as last:
        numbers = [
            each.open("photo.png", make_photo(60 + n, 40))["number"]
            for n, each in enumerate((one, two, gone, last))
        ]
        paths = [f"pictures/{number}/masks?rule=auto:text" for number in numbers]
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(one.post, paths[0]), pool.submit(two.post, paths[1])]
            search.seen(2)
            gone.http.timeout = httpx.Timeout(20, read=0.5)
            with pytest.raises(httpx.ReadTimeout):
                gone.post(paths[2])
            asked.append(pool.submit(last.post, paths[3]))
            search.go_on.set()
            assert all(each.result(20).status_code == 200 for each in asked)
    assert (62, 40) not in search.sizes


def test_find_of_one_who_leaves_stops_at_its_next_step(
    address: str, make_photo: Maker, search: Any
) -> None:
    with Page(address) as page:
        number = page.open("photo.png", make_photo(60, 40))["number"]
        path = f"pictures/{number}/masks?rule=auto:scratches"
        page.http.timeout = httpx.Timeout(20, read=0.5)
        with pytest.raises(httpx.ReadTimeout):
            page.post(path)
        assert search.stopped.wait(10)
        # The visitor's next one has its turn at once, and is what it would have been.
        search.go_on.set()
        page.http.timeout = httpx.Timeout(20)
        assert page.post(path).status_code == 200


def test_rules_that_are_not_offered_are_refused_by_what_is(page: Page, make_photo: Maker) -> None:
    number = page.open("photo.png", make_photo(60, 40))["number"]
    batch = f"batches/{page.post('batches').json()['batch']}/fills"
    for rule in ("auto:people", "auto:٣", "alpha", "color:%23fff"):
        for path in (f"pictures/{number}/masks", batch):
            answer = page.post(f"{path}?rule={rule}")
            words = answer.json()["error"]
            assert answer.status_code == 400 and "scratches" in words and "text" in words, rule
            assert "--" not in words and "./" not in words


def test_digits_of_other_scripts_are_refused_wherever_a_number_is_expected(
    page: Page, make_photo: Maker
) -> None:
    picture = page.open("photo.png", make_photo(60, 40))["number"]
    white = png(Image.new("L", (9, 9), 255))
    for path in (
        "fills?left=٣&top=0",
        "fills?grow=٣,0,0,0",
        "selections?grow=٣",
        "selections?grow=-٣",
        "selections?box=٠,٠,٩,٩",
    ):
        answer = page.post(f"pictures/{picture}/{path}", white)
        assert (answer.status_code, "give" in answer.json()["error"]) == (400, True), path
    opened = page.open("photo-filled-٣.png", make_photo(60, 40))
    name = page.fill(opened, (5, 5, 20, 20))[-1]["picture"]["name"]
    assert name == "photo-filled-٣-filled.png"


@pytest.mark.parametrize(("size", "on_disk"), [(1000, False), (2**22, True)])
def test_bodies_of_many_requests_do_not_fill_the_memory(size: int, on_disk: bool) -> None:
    class Request:
        async def stream(self) -> AsyncIterator[bytes]:
            for _ in range(4):
                yield bytes(size // 4)

    async def read() -> tuple[bool, int]:
        async with PageApi.body(cast(Any, None), Request()) as file:
            return cast(Any, file)._rolled, len(file.read())

    assert asyncio.run(read()) == (on_disk, size)


# --- several photos at once ----------------------------------------------------------------------


def zipped(**images: Image.Image) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, image in images.items():
            archive.writestr(f"folder/{name}.png", png(image))
        archive.writestr("folder/notes.txt", b"no photo")
        archive.writestr("__MACOSX/folder/._a.png", b"no photo")
    return buffer.getvalue()


def test_zip_of_photos_comes_back_filled_by_one_mask(
    page: Page, make_photo: Maker, make_mask: Maker, inpainter: Inpainter
) -> None:
    photos = {"a": make_photo(50, 40), "b": make_photo(50, 40, seed=1)}
    batch = f"batches/{page.post('batches').json()['batch']}"
    assert page.post(f"{batch}/fills").status_code == 400
    assert page.post(f"{batch}/photos?name=all.zip", zipped(**photos)).json()["photos"] == 2
    told = page.post(f"{batch}/photos?name=c.png", png(make_photo(30, 20))).json()
    assert told == {"photos": 3, "masks": 0}
    answer = page.post(f"{batch}/fills")
    assert (answer.status_code, "no mask yet" in answer.json()["error"]) == (400, True)
    mask = make_mask(50, 40)
    page.post(f"{batch}/masks?name=mask.png", png(mask))
    last = lines(page.post(f"{batch}/fills"))[-1]
    assert (last["state"], last["filled"]) == ("done", 2)
    assert [one["photo"] for one in last["failed"]] == ["c.png"]
    assert "the mask is 50x40" in last["failed"][0]["error"]
    with zipfile.ZipFile(io.BytesIO(page.get(f"{batch}/filled.zip").content)) as packed:
        assert packed.namelist() == ["folder/a-filled.png", "folder/b-filled.png"]
        for name, photo in photos.items():
            with packed.open(f"folder/{name}-filled.png") as file:
                expected = np.asarray(inpainter(photo, mask))
                assert (pixels(Image.open(file)) == expected).all()


@pytest.mark.parametrize("rule", ["auto:scratches", "auto:scratches-classical"])
def test_scratches_are_found_with_and_without_a_network(
    page: Page, make_photo: Maker, rule: str
) -> None:
    scratched = make_photo(200, 150)
    scratched.paste("white", (20, 70, 180, 72))
    number = page.open("scan.png", scratched)["number"]
    answer = page.post(f"pictures/{number}/masks?rule={rule}")
    assert answer.status_code == 200
    assert answer.json()["mask"]


def test_masks_of_several_photos_are_found_by_name_or_made(
    page: Page, make_photo: Maker, make_mask: Maker
) -> None:
    batch = f"batches/{page.post('batches').json()['batch']}"
    scratched = make_photo(90, 60)
    scratched.paste("white", (10, 30, 80, 32))
    page.post(f"{batch}/photos?name=all.zip", zipped(a=scratched, b=make_photo(50, 40)))
    masks = zipped(a=make_mask(90, 60), c=make_mask(50, 40))
    page.post(f"{batch}/masks?name=masks.zip", masks)
    last = lines(page.post(f"{batch}/fills"))[-1]
    assert (last["filled"], "no mask called b" in last["failed"][0]["error"]) == (1, True)
    assert page.post(f"{batch}/fills?rule=alpha").status_code == 400
    # What is filled stays; the rest is tried again.
    page.post(f"{batch}/masks?name=b.png", png(make_mask(50, 40)))
    told = lines(page.post(f"{batch}/fills"))
    assert {line["photo"] for line in told if "photo" in line} == {"folder/b.png"}
    told = lines(page.post(f"{batch}/fills?rule=auto:scratches"))
    # And what was filled by a mask is filled by what is found now.
    assert {line["photo"] for line in told if "photo" in line} == {"folder/a.png", "folder/b.png"}


def test_photos_in_which_nothing_is_found_come_back_as_they_are(
    page: Page, make_photo: Maker
) -> None:
    scratched, clean = make_photo(200, 150), Image.new("RGB", (90, 60), "gray")
    scratched.paste("white", (20, 70, 180, 72))
    batch = f"batches/{page.post('batches').json()['batch']}"
    page.post(f"{batch}/photos?name=all.zip", zipped(scratched=scratched, clean=clean))
    last = lines(page.post(f"{batch}/fills?rule=auto:scratches-classical"))[-1]
    assert (last["filled"], last["unchanged"], last["failed"]) == (1, 1, [])
    with zipfile.ZipFile(io.BytesIO(page.get(f"{batch}/filled.zip").content)) as packed:
        assert packed.namelist() == ["scratched-filled.png", "clean.png"]
        assert packed.read("clean.png") == png(clean)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("all.zip", b"no zip", "cannot be unpacked"),
        ("notes.txt", b"text", "no image by its name"),
    ],
)
def test_what_is_no_photo_or_zip_is_refused(
    page: Page, name: str, content: bytes, words: str
) -> None:
    batch = f"batches/{page.post('batches').json()['batch']}"
    answer = page.post(f"{batch}/photos?name={name}", content)
    assert (answer.status_code, words in answer.json()["error"]) == (400, True)


def files_of(page: Page) -> list[Path]:
    """What the server keeps of a visitor."""
    (folder,) = Path(tempfile.gettempdir()).glob(f"regionnorm-app-*/sessions/{page.visitor}")
    return [path for path in folder.rglob("*") if path.is_file()]


class Batch:
    """Several photos at once, with masks that show which of them was used."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.path = f"batches/{page.post('batches').json()['batch']}"

    def send(self, kind: str, name: str, content: bytes) -> Any:
        return self.page.post(f"{self.path}/{kind}?name={name}", content)

    def mask(self, name: str, left: int) -> None:
        mask = Image.new("L", (60, 40))
        mask.paste(255, (left, 10, left + 6, 30))
        self.send("masks", name, png(mask))

    def fill(self, rule: str = "") -> Any:
        return lines(self.page.post(f"{self.path}/fills{rule and f'?rule={rule}'}"))[-1]

    def holes(self, **photos: Image.Image) -> dict[str, int]:
        """Of each result in the zip, where its hole begins."""
        found = {}
        with zipfile.ZipFile(io.BytesIO(self.page.get(f"{self.path}/filled.zip").content)) as zip:
            for name in zip.namelist():
                with zip.open(name) as file:
                    photo = photos[name[0]]
                    changed = (pixels(Image.open(file)) != np.asarray(photo)).any(axis=(0, 2))
                found[name] = int(np.flatnonzero(changed)[0])
        return found


@pytest.fixture
def batch(page: Page) -> Batch:
    return Batch(page)


def test_a_better_mask_fills_its_photo_anew(batch: Batch, make_photo: Maker) -> None:
    photo = make_photo(60, 40)
    batch.send("photos", "a.png", png(photo))
    batch.send("photos", "b.png", png(photo))
    batch.mask("a.png", 5)
    batch.mask("b.png", 15)
    assert batch.fill()["filled"] == 2
    batch.mask("a.png", 30)
    last = batch.fill()
    assert (last["filled"], last["failed"]) == (2, [])
    assert batch.holes(a=photo, b=photo) == {"a-filled.png": 30, "b-filled.png": 15}
    # What a page that was loaded anew asks for.
    told = batch.page.get(batch.path).json()
    assert (told["photos"], told["masks"], told["filled"], told["busy"]) == (2, 2, 2, False)
    # Nothing is left of what was replaced: two photos, two masks, two results and the zip.
    assert len(files_of(batch.page)) == 7


def test_folders_tell_photos_of_one_name_apart(batch: Batch, make_photo: Maker) -> None:
    photo = make_photo(60, 40)
    for folder, left in (("a", 5), ("b", 25)):
        batch.send("photos", f"photos/{folder}/1.png", png(photo))
        batch.mask(f"masks/{folder}/1.png", left)
    last = batch.fill()
    assert (last["filled"], last["failed"]) == (2, [])
    assert batch.holes(a=photo, b=photo) == {"a/1-filled.png": 5, "b/1-filled.png": 25}


@pytest.mark.parametrize(
    ("photos", "masks", "found"),
    [
        # As files, without folders, two photos of one name cannot be told apart.
        (["1.png", "1.png", "2.png"], ["1.png", "2.png"], {"2.png": "2.png"}),
        (["1.png", "1.bmp"], ["1.png", "2.png"], {"1.png": "1.png"}),
        (["1.bmp", "2.bmp"], ["1.png", "1.gif", "2.png"], {"2.bmp": "2.png"}),
        (["1.png", "trip/2.png"], ["1.png", "2.png"], {"1.png": "1.png", "trip/2.png": "2.png"}),
        (["a/1.png", "b/1.png"], ["1.png", "2.png"], {}),
        (["in/1.jpg", "in/b/1.jpg"], ["m/1.png", "m/b/1.png"], None),
        (["1.png", "1.png"], ["any.png"], None),
    ],
)
def test_masks_are_paired_only_where_one_can_be_meant(
    photos: list[str], masks: list[str], found: dict[str, str] | None
) -> None:
    given = _Batch(Path())
    for kept, names in ((given.photos, photos), (given.masks, masks)):
        for name in names:
            given.keep(_Sent(Path(name), PurePosixPath(name), 1), kept)
    pairs = {}
    for name, photo in given.photos.items():
        try:
            pairs[name] = str(_Masks(given, "").find(photo))
        except ValueError as error:
            assert "mask" in str(error)
    wanted = dict(zip(given.photos, masks * 2, strict=False)) if found is None else found
    assert pairs == wanted


def test_what_was_refused_leaves_room(
    batch: Batch, make_photo: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regionnorm.web.batches._MOST_FILES", 3)
    photo = png(make_photo(30, 20))
    monkeypatch.setattr("regionnorm.web.batches._MOST_BYTES", 4 * len(photo))
    four = zipped(**dict.fromkeys("wxyz", make_photo(30, 20)))
    answer = batch.send("photos", "all.zip", four)
    assert (answer.status_code, "drop fewer" in answer.json()["error"]) == (400, True)
    for name in ("a.png", "b.png", "c.png"):
        assert batch.send("photos", name, photo).status_code == 200
    for _ in range(2):
        assert batch.send("photos", "d.png", photo).status_code == 400
    # One mask fits beside three photos, and another in its place.
    for _ in range(3):
        assert batch.send("masks", "m.png", photo).json() == {"photos": 3, "masks": 1}
    assert len(files_of(batch.page)) == 4


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_of_a_damaged_zip_nothing_is_taken(batch: Batch, make_photo: Maker, method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("good.png", png(make_photo(30, 20)))
        archive.writestr("bad.png", bytes(range(256)) * 40)
    content = bytearray(buffer.getvalue())
    with zipfile.ZipFile(buffer) as archive:
        start = archive.getinfo("bad.png").header_offset + 45
    content[start : start + 12] = b"\xff" * 12
    answer = batch.send("photos", "all.zip", bytes(content))
    assert (answer.status_code, "cannot be unpacked" in answer.json()["error"]) == (400, True)
    assert batch.page.get(batch.path).json()["photos"] == 0
    assert not files_of(batch.page)


def test_a_mask_of_too_many_pixels_is_refused_before_it_is_decoded(
    batch: Batch, make_photo: Maker
) -> None:
    batch.send("photos", "a.png", png(make_photo(60, 40)))
    batch.send("masks", "a.png", png(Image.new("1", (7000, 7000))))
    (failed,) = batch.fill()["failed"]
    assert "49 megapixels; up to" in failed["error"]


def test_zip_that_unpacks_to_too_much_is_refused(page: Page) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("large.png", bytes(500_000))
    batch = f"batches/{page.post('batches').json()['batch']}"
    answer = page.post(f"{batch}/photos?name=all.zip", buffer.getvalue())
    assert (answer.status_code, "too large" in answer.json()["error"]) == (400, True)


# --- behind a proxy, and with a password ---------------------------------------------------------


def test_page_and_programs_are_served_below_a_path_of_a_proxy(
    inpainter: Inpainter, make_photo: Maker
) -> None:
    with (
        running(inpainter, AppOptions(port=0, root_path="/fill/")) as (_, url),
        stripping_proxy(url, "/fill") as shown,
        httpx.Client(base_url=shown, timeout=60) as http,
    ):
        config = http.get("config").json()
        assert config["root"].endswith("/fill")
        assert "page/static" in http.get("").text
        paths = http.post("gradio_api/upload", files={"files": png(make_photo(30, 20))}).json()
        assert len(paths) == 1
        with Page(shown) as page:
            picture = page.open("photo.png", make_photo(60, 40))
            last = page.fill(picture, (5, 5, 20, 20))[-1]
            assert last["state"] == "done"
            assert page.get(f"pictures/{last['picture']['number']}/file").status_code == 200


def test_password_is_asked_of_the_page_too_and_guesses_are_slowed(
    inpainter: Inpainter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regionnorm.web.guard._FIRST_WAIT", 0.1)
    monkeypatch.setattr("regionnorm.web.guard._LONGEST_WAIT", 0.3)
    with (
        running(inpainter, AppOptions(port=0, password="open sesame")) as (_, url),
        httpx.Client(base_url=url, timeout=60) as http,
    ):
        for path in ("openapi.json", "page/examples/0", "page/static/1/main.js"):
            answer = http.get(path)
            assert (answer.status_code, list(answer.json())) == (401, ["error"])
        assert http.post("page/visitors").status_code == 401
        seconds = []
        for _ in range(3):
            began = time.monotonic()
            data = {"username": "me", "password": "wrong"}
            assert http.post("login", data=data).status_code == 400
            seconds.append(time.monotonic() - began)
        assert seconds[1] > 0.19 and seconds[2] > 0.29
        # Many at once do not get round it.
        guesses: list[int] = []

        def guess() -> None:
            guesses.append(httpx.post(f"{url}login", data=data, timeout=60).status_code)

        threads = [threading.Thread(target=guess) for _ in range(8)]
        for thread in threads:
            thread.start()
        while guesses.count(429) < 3:
            time.sleep(0.01)
        assert guesses.count(400) <= 1
        for thread in threads:
            thread.join()


def test_right_password_lets_the_page_in(inpainter: Inpainter) -> None:
    with (
        running(inpainter, AppOptions(port=0, password="open sesame")) as (_, url),
        httpx.Client(base_url=url, timeout=60) as http,
    ):
        http.post("login", data={"username": "me", "password": "open sesame"})
        assert http.get("openapi.json").status_code == 200
        assert http.get("page/examples/0").status_code == 200
        with Page(url, cookies=http.cookies) as page:
            assert page.get("").json()["pictures"] == []
