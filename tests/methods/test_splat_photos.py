"""The training photos of splat: the same bits however they come into memory, and no more of them than may be."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from turntable.methods.splat import photos as module
from turntable.methods.splat.photos import LEVELS, Photos, available_memory, halved, plan
from turntable.worker.contract import Camera, View
from turntable.worker.png import write_png


class CountedView(View):
    """A view that counts how often its photo is read, and can be made to take its time."""

    reads = 0
    gate: threading.Event | None = None

    @property
    def image_u8(self) -> np.ndarray:
        self.reads += 1
        if self.gate is not None:
            assert self.gate.wait(30)
        return super().image_u8


def random_views(folder: Path, count: int, sizes=((40, 32),), masked=False) -> list[CountedView]:
    generator = np.random.default_rng(count)
    views = []
    for index in range(count):
        width, height = sizes[index % len(sizes)]
        camera = Camera(width, height, 50, 50, width / 2, height / 2, np.eye(3), np.zeros(3))
        path, mask_path = folder / f"{index}.png", None
        write_png(path, generator.integers(0, 256, (height, width, 3), np.uint8))
        if masked and index % 3 != 2:
            mask_path = folder / f"mask{index}.png"
            write_png(
                mask_path, generator.choice(np.array([0, 255], np.uint8), (height, width), p=[0.1, 0.9])
            )
        views.append(CountedView(str(index), camera, path, mask_path))
    return views


def halved_plainly(photo: np.ndarray) -> np.ndarray:
    height, width = photo.shape[0] // 2, photo.shape[1] // 2
    if height == 0 or width == 0:
        return photo[: max(height, 1), : max(width, 1)]
    even = photo[: 2 * height, : 2 * width].astype(int)
    return (even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2] + 2) // 4


def expected(view: View, level: int) -> tuple[np.ndarray, np.ndarray | None]:
    photo, mask = View.image_u8.__get__(view), view.mask
    for _ in range(level):
        photo = halved_plainly(photo)
        if mask is not None:
            mask = halved_plainly(mask * 4) == 4
    return photo, mask


def assert_same(photos: Photos, views: list[CountedView], index: int, level: int) -> None:
    photo, mask = expected(views[index], level)
    for got, wanted in ((photos.photo(index, level), photo), (photos.mask(index, level), mask)):
        if wanted is None:
            assert got is None
        else:
            assert got is not None and got.dtype == np.uint8 and got.flags.c_contiguous
            np.testing.assert_array_equal(got, wanted)


def total_bytes(views: list[CountedView]) -> int:
    return sum(module.entry_bytes(view, level) for view in views for level in range(LEVELS))


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 70), st.integers(1, 9))), st.booleans())
def test_halving_is_the_rounded_mean_of_four_pixels(grey, coloured):
    photo = np.stack([grey, 255 - grey, grey // 3], 2) if coloured else grey
    half = halved(photo)
    assert half.dtype == np.uint8
    np.testing.assert_array_equal(half, halved_plainly(photo))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_every_level_has_the_same_bits_whatever_is_kept(tmp_path, share):
    sizes = [(40, 32), (33, 47), (1, 1), (3, 1), (2, 5), (70, 131)]
    views = random_views(tmp_path, 12, sizes, masked=True)
    photos = Photos(views, bound=int(share * total_bytes(views)))
    generator = np.random.default_rng(0)
    for level in (2, 0, 1, 0, 2):  # not the order of training alone
        order = generator.permutation(len(views)).tolist()
        for index, following in zip(order, [*order[1:], order[0]], strict=True):
            assert_same(photos, views, index, level)
            photos.prefetch(following, level)


def test_what_fits_is_read_once_and_without_a_thread(tmp_path):
    views = random_views(tmp_path, 6, masked=True)
    photos = Photos(views, bound=total_bytes(views))
    assert [view.reads for view in views] == [1] * 6
    before = threading.active_count()
    for level in range(LEVELS):
        for index in range(6):
            photos.prefetch(index, level)
            assert photos.photo(index, level) is photos.photo(index, level)
    assert [view.reads for view in views] == [1] * 6 and threading.active_count() == before


def test_by_default_what_is_small_fits(tmp_path):
    views = random_views(tmp_path, 3)
    Photos(views)
    assert [view.reads for view in views] == [1] * 3


@pytest.mark.parametrize("fits", [False, True])
def test_many_pixels_are_not_read_before_they_are_asked_for(tmp_path, monkeypatch, fits):
    monkeypatch.setattr(module, "READ_AT_ONCE", 1000)
    views = random_views(tmp_path, 4)
    photos = Photos(views, bound=total_bytes(views) if fits else 0)
    assert [view.reads for view in views] == [0] * 4
    for level in (2, 1, 0, 2):
        photos.photo(3, level)
    assert [view.reads for view in views] == [0, 0, 0, 1 if fits else 4]


def test_the_bound_holds(tmp_path):
    views = random_views(tmp_path, 30, [(300, 200)], masked=True)
    one = 300 * 200 * 4
    for bound in (0, 4 * one, 11 * one):
        gc.collect()
        tracemalloc.start()
        try:
            photos = Photos(views, bound=bound)
            for level in (2, 1, 0):
                for index in np.random.default_rng(0).permutation(30).tolist():
                    photos.photo(index, level)
                    # beside what is kept: the photo asked for last, and Python's own things
                    assert tracemalloc.get_traced_memory()[0] < bound + one + 100_000
            assert tracemalloc.get_traced_memory()[0] > 0.8 * bound
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("level", [0, 1, 2])
def test_with_room_for_half_of_the_photos_half_are_found(tmp_path, level):
    views = random_views(tmp_path, 40)
    at_level = sum(module.entry_bytes(view, level) for view in views)
    photos = Photos(views, bound=at_level // 2)
    generator = np.random.default_rng(0)
    for index in range(40):
        photos.photo(index, level)
    read = sum(view.reads for view in views)
    for _ in range(10):
        for index in generator.permutation(40).tolist():
            photos.photo(index, level)
    assert sum(view.reads for view in views) - read == pytest.approx(200, abs=5)


def test_the_level_in_use_is_kept_first_then_coarse_before_fine():
    sizes = np.array([[160, 160], [40, 40], [10, 10]])
    table = {
        (420, 0): "11 11 11",
        (0, 0): "00 00 00",
        (159, 0): "00 11 11",
        (330, 0): "11 00 10",  # level 0 takes 320, and the last 10 go to what is smallest
        (60, 1): "00 10 11",
        (100, 1): "00 11 11",
        (270, 1): "10 11 11",
        (100, 2): "00 11 11",
    }
    for (bound, level), rows in table.items():
        assert " ".join("".join(str(int(kept)) for kept in row) for row in plan(sizes, bound, level)) == rows


def test_what_is_too_large_to_keep_leaves_room_for_others():
    assert plan(np.array([[500, 100, 100]]), 200, 0).tolist() == [[False, True, True]]


def test_coarse_photos_give_way_when_training_goes_on_to_finer_ones(tmp_path):
    views = random_views(tmp_path, 10)
    photos = Photos(views, bound=10 * 40 * 32 * 3)  # level 0 alone
    for level in (2, 1, 0, 0):
        for index in range(10):
            photos.photo(index, level)
    reads = [view.reads for view in views]
    for index in range(10):
        photos.photo(index, 0)
    assert [view.reads for view in views] == reads


def test_a_photo_read_ahead_is_waited_for_and_read_once(tmp_path):
    views = random_views(tmp_path, 3, masked=True)
    photos = Photos(views, bound=0)
    views[1].gate = threading.Event()
    photos.prefetch(1, 0)
    photos.prefetch(1, 0)
    photos.prefetch(2, 0)  # passed over: one at a time
    assert views[2].reads == 0
    threading.Timer(0.1, views[1].gate.set).start()
    assert_same(photos, views, 1, 0)
    assert views[1].reads == 1
    photos.prefetch(1, 0)  # in memory: it was asked for last
    assert views[1].reads == 1


def test_other_photos_can_be_asked_for_while_one_is_read_ahead(tmp_path):
    views = random_views(tmp_path, 3)
    photos = Photos(views, bound=0)
    views[1].gate = threading.Event()
    photos.prefetch(1, 0)
    assert_same(photos, views, 0, 0)
    assert_same(photos, views, 2, 1)
    views[1].gate.set()
    assert_same(photos, views, 1, 1)  # at another level than was read ahead
    assert_same(photos, views, 1, 0)


def test_a_photo_read_ahead_and_never_asked_for_makes_room_for_the_next(tmp_path):
    views = random_views(tmp_path, 3)
    photos = Photos(views, bound=0)
    photos.prefetch(0, 0)
    deadline = time.monotonic() + 30
    while views[1].reads == 0:  # until the first has been read
        photos.prefetch(1, 0)
        assert time.monotonic() < deadline
    assert_same(photos, views, 1, 0)
    assert (views[0].reads, views[1].reads) == (1, 1)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize(
    "spoil, error, words",
    [
        (lambda path: path.unlink(), FileNotFoundError, "1.png"),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), ValueError, "1.png: damaged PNG"),
    ],
)
def test_a_file_that_cannot_be_read_is_the_error_that_photo_raises(tmp_path, ahead, spoil, error, words):
    views = random_views(tmp_path, 3)
    photos = Photos(views, bound=0)
    spoil(views[1].image_path)
    for _ in range(2):  # and again, not a stale photo
        if ahead:
            photos.prefetch(1, 0)
        with pytest.raises(error, match=words):
            photos.photo(1, 0)
    assert_same(photos, views, 2, 0)


def test_a_mask_that_cannot_be_read_is_an_error_too(tmp_path):
    views = random_views(tmp_path, 3, masked=True)
    photos = Photos(views, bound=0)
    (tmp_path / "mask0.png").unlink()
    photos.prefetch(0, 1)
    with pytest.raises(FileNotFoundError, match=r"mask0\.png"):
        photos.mask(0, 1)


def test_a_program_ends_while_a_photo_is_read_ahead(tmp_path):
    random_views(tmp_path, 1)
    program = """
import sys, time, numpy as np
from pathlib import Path
from turntable.methods.splat.photos import Photos
from turntable.worker.contract import Camera, View

class Slow(View):
    @property
    def image_u8(self):
        time.sleep(600)

photos = Photos([Slow("0", Camera(40, 32, 50, 50, 20, 16, np.eye(3), np.zeros(3)), Path(sys.argv[1]))], bound=0)
photos.prefetch(0)
"""
    arguments = [sys.executable, "-c", program, str(tmp_path / "0.png")]
    done = subprocess.run(arguments, timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_border_of_all_photos_is_looked_at_where_they_are_small(tmp_path):
    views = random_views(tmp_path, 40, masked=True)
    border = []
    for view in views:
        photo, mask = expected(view, LEVELS - 1)
        edge = np.ones(photo.shape[:2], bool)
        edge[1:-1, 1:-1] = False
        border.append(photo[edge if mask is None else edge & mask.astype(bool)])
    wanted = (np.median(np.concatenate(border), axis=0) / 255).astype(np.float32)
    for bound in (0, 10_000, None):
        np.testing.assert_array_equal(Photos(views, bound=bound).border_colour(), wanted)


def test_the_border_of_an_even_sample_is_looked_at_where_there_are_many_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "READ_AT_ONCE", 1000)
    views = random_views(tmp_path, 100)
    colour = Photos(views, bound=0).border_colour()
    looked_at = np.flatnonzero([view.reads for view in views])
    assert len(looked_at) == module.BORDERS and looked_at[0] == 0 and looked_at[-1] == 99
    assert set(np.diff(looked_at)) <= {3, 4}
    for bound in (0, total_bytes(views)):
        photos = Photos(views, bound=bound)
        photos.photo(1, 0)
        np.testing.assert_array_equal(photos.border_colour(), colour)


def test_a_border_where_nothing_counts_falls_back_to_what_counts(tmp_path):
    views = random_views(tmp_path, 2, masked=True)
    counts = np.zeros((32, 40), np.uint8)
    counts[8:24, 8:32] = 255
    for index in range(2):
        photo = np.zeros((32, 40, 3), np.uint8)
        photo[8:24, 8:32] = [51, 102, 204]
        write_png(tmp_path / f"{index}.png", photo)
        write_png(tmp_path / f"mask{index}.png", counts)
    assert Photos(views).border_colour() == pytest.approx([0.2, 0.4, 0.8])
    for index in range(2):
        write_png(tmp_path / f"mask{index}.png", np.zeros((32, 40), np.uint8))
    np.testing.assert_array_equal(Photos(views).border_colour(), np.zeros(3))


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal:       8000 kB\nMemFree:         100 kB\nMemAvailable:   5000 kB\n"}


def group(folder: str, limit: str, used: int, cached: int = 0) -> dict[str, str]:
    stat = f"anon {used - cached}\nactive_file {cached // 2}\ninactive_file {cached - cached // 2}\n"
    at = f"sys/fs/cgroup/{folder}"
    return {f"{at}memory.max": f"{limit}\n", f"{at}memory.current": f"{used}\n", f"{at}memory.stat": stat}


def test_available_memory_is_what_linux_says(tmp_path):
    assert available_memory(written(tmp_path, MEMINFO)) == 5000 * 1024


def test_available_memory_without_proc_is_half_of_the_physical(tmp_path):
    assert available_memory(tmp_path) > 100_000_000


@pytest.mark.parametrize(
    "groups, wanted",
    [
        (group("", "1000000", 300000), 700000),  # a container that sees itself as the root
        (group("a/b/", "1000000", 300000), 700000),
        (group("a/", "1000000", 300000) | group("a/b/", "max", 200000), 700000),  # the group above counts too
        (group("a/b/", "1000000", 900000, cached=600000), 700000),
        (group("a/b/", "1000000", 1200000), 0),
        (group("a/b/", "1" + "0" * 12, 300000), 5000 * 1024),
        (group("other/", "1000", 0), 5000 * 1024),
    ],
)
def test_a_cgroups_limit_holds_where_it_is_less(tmp_path, groups, wanted):
    assert available_memory(written(tmp_path, MEMINFO | {"proc/self/cgroup": "0::/a/b\n"} | groups)) == wanted


def test_the_default_bound_is_a_quarter_of_what_is_available(tmp_path, monkeypatch):
    views = random_views(tmp_path, 4)
    for available, reads in ((4 * total_bytes(views), 1), (4 * total_bytes(views) - 4, 0)):
        monkeypatch.setattr(module, "available_memory", lambda available=available: available)
        for view in views:
            view.reads = 0
        Photos(views)
        assert [view.reads for view in views] == [reads] * 4
