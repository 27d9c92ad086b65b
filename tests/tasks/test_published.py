"""Published beside reproduced: what agrees, and which words say what doesn't."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turntable.captures.capture import Capture
from turntable.errors import TurntableError
from turntable.methods.facts import MEAN, METRICS, Fact, Protocol
from turntable.methods.registry import find_methods
from turntable.tasks.metrics import psnr, ssim
from turntable.tasks.published import (
    SHIPPED,
    Beside,
    Ours,
    Published,
    beside,
    beside_mean,
    find,
    is_same_method,
    load_published,
)

SHIPPED_FACTS = load_published()
OUTDOORS = ("bicycle", "flowers", "garden", "stump", "treehill")


def view(
    name: str, held_out: bool, size: tuple[int, int], photo: tuple[int, int], path: str
) -> dict[str, Any]:
    width, height = size
    camera = {"R": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "t": [0, 0, 0], "fx": 1, "fy": 1, "cx": 0, "cy": 0}
    return {
        "name": name,
        "camera": {**camera, "width": width, "height": height},
        "image": "images/x.png",
        "mask": None,
        "held_out": held_out,
        "origin": {"path": path, "sha256": "0" * 64, "width": photo[0], "height": photo[1]},
    }


def capture_of(name: str | None, views: list[dict[str, Any]], **changed: Any) -> Capture:
    said = {} if name is None else {"dataset": {"name": name, "sha256": ""}}
    document = {
        "background": [1.0, 1.0, 1.0],
        "has_alpha": False,
        "left_out": [],
        "views": views,
        "source": {"format": "test", "path": "nowhere", "files": {}, **said},
        **changed,
    }
    return Capture(Path(f"/captures/{name}"), document)


def lego(
    tests: int = 200,
    size: int = 800,
    photo: int = 800,
    name: str | None = "nerf_synthetic/lego",
    **changed: Any,
):
    sides, photos = (size, size), (photo, photo)
    views = [view(f"test/r_{i}.png", True, sides, photos, f"test/r_{i}.png") for i in range(tests)]
    views += [view(f"train/r_{i}.png", False, sides, photos, f"train/r_{i}.png") for i in range(100)]
    return capture_of(name, views, **{"has_alpha": True, **changed})


def of_360(
    scene: str, folder: str | None = None, photo: tuple[int, int] = (1237, 822), count: int = 40
) -> Capture:
    folder = folder or ("images_4" if scene in OUTDOORS else "images_2")
    views = [
        view(f"{i:03}.JPG", i % 8 == 0, photo, photo, f"/data/{scene}/{folder}/{i:03}.JPG")
        for i in range(count)
    ]
    return capture_of(f"mipnerf360/{scene}", views)


def splat(value: float = 33.0, budget: str = "30000steps", **changed: Any) -> Ours:
    ours = Ours(
        method="splat",
        values={"psnr": value, "ssim": 0.9, "lpips-vgg-0.1[-1,1]": 0.2},
        definitions={"psnr": psnr.DEFINITION, "ssim": ssim.DEFINITION},
        budget=budget,
        settings={"densification": "split"},
        reproduces=find_methods()["splat"].reproduces,
    )
    return replace(ours, **changed)


def on(rows: list[Beside], method: str, metric: str = "psnr") -> Beside:
    (row,) = (
        row for row in rows if row.method == method and row.metric == metric and "FastGS" not in row.source
    )
    return row


# What is shipped.


def test_the_shipped_means_are_those_of_the_scenes_that_stand_beside_them() -> None:
    seen = 0
    for fact in SHIPPED_FACTS.on("nerf_synthetic", MEAN):
        scenes = [
            other.value
            for other in SHIPPED_FACTS.on("nerf_synthetic")
            if other.scene != MEAN and (other.method, other.metric) == (fact.method, fact.metric)
        ]
        assert len(scenes) == 8
        assert abs(sum(scenes) / 8 - fact.value) <= 0.005 + 1e-9, fact.method
        seen += 1
    assert seen == 5


@pytest.mark.parametrize(
    ("what", "method", "metric", "value"),
    [
        ("nerf_synthetic/lego", "3DGS", "psnr", 35.78),
        ("nerf_synthetic/mic", "Instant-NGP", "psnr", 36.22),
        ("nerf_synthetic/ficus", "TensoRF", "psnr", 33.99),
        ("nerf_synthetic/mean", "NeRF", "psnr", 31.01),
        ("mipnerf360/mean", "Zip-NeRF", "lpips", 0.189),
        ("mipnerf360/mean", "3DGS-MCMC", "psnr", 29.89),
        ("dtu/mean", "Neuralangelo", "chamfer", 0.61),
    ],
)
def test_some_numbers_are_what_they_were_written_down_as(
    what: str, method: str, metric: str, value: float
) -> None:
    assert [
        fact.value for fact in find(SHIPPED_FACTS, what) if (fact.method, fact.metric) == (method, metric)
    ] == [value]


def test_numbers_that_were_not_read_in_their_source_say_so() -> None:
    for fact in SHIPPED_FACTS.facts:
        if re.search(r"recalled|handed down|carries it|carry them", fact.source + fact.note):
            assert not fact.checked, fact
    assert {fact.by for fact in SHIPPED_FACTS.on("dtu") if fact.method == "2DGS"} == {
        "",
        "its authors, run again",
    }


def test_costs_stand_with_their_hardware_where_it_is_known() -> None:
    costs = {(fact.method, fact.budget, fact.by): fact.cost for fact in SHIPPED_FACTS.on("mipnerf360", MEAN)}
    assert costs["3DGS", "30000 steps", ""].training_s == 41 * 60 + 33
    assert costs["3DGS", "30000 steps", ""].hardware == "A6000"
    assert costs["FastGS", "30000 steps", ""].training_s == 116
    assert costs["mip-NeRF 360", "", ""].hardware == ""


def test_the_shipped_facts_lie_in_the_package() -> None:
    assert {path.name for path in SHIPPED.glob("*.toml")} == {
        "nerf_synthetic.toml",
        "mipnerf360.toml",
        "dtu.toml",
    }
    assert "turntable" in SHIPPED.parts


# One scene.


def test_a_number_measured_as_ours_is_agrees() -> None:
    row = on(beside(lego(), splat(33.5), SHIPPED_FACTS), "3DGS")
    assert (row.value, row.ours, row.agrees, row.differences) == (35.78, 33.5, True, ())
    assert row.same_method and not row.checked and "NerfBaselines" in row.source


def test_a_capture_is_only_of_a_data_set_where_somebody_said_so() -> None:
    assert beside(lego(name=None), splat(), SHIPPED_FACTS) == []
    assert beside(lego(name="nerf_synthetic/chair"), splat(), SHIPPED_FACTS)[0].value == 35.83


def test_a_black_background_is_named() -> None:
    row = on(beside(lego(), splat(), SHIPPED_FACTS), "Instant-NGP")
    assert not row.agrees and "black background, ours is white" in row.differences
    black = on(beside(lego(background=[0.0, 0.0, 0.0]), splat(), SHIPPED_FACTS), "Instant-NGP")
    assert not any("background" in text for text in black.differences)


def test_what_nobody_says_is_named_as_unknown() -> None:
    row = on(beside(lego(), splat(), SHIPPED_FACTS), "NeRF")
    assert not row.agrees
    assert row.differences == ("whether 8-bit pictures were compared isn't said; ours are",)


@pytest.mark.parametrize(
    ("capture", "words"),
    [
        (lego(tests=25), "200 held-out views, ours are 25"),
        (lego(size=400), "800×800 pixels, ours 400×400"),
        (lego(photo=1600), "ours are resized by Turntable"),
        (lego(background=[0.5, 0.5, 0.5]), "white background, ours is #808080"),
        (lego(has_alpha=False), "white background, our photos had no alpha to put on it"),
        (lego(left_out=[{"name": "a", "why": "b"}]), "all photos of the data set, ours left out 1"),
    ],
)
def test_each_difference_is_named_in_words(capture: Capture, words: str) -> None:
    row = on(beside(capture, splat(), SHIPPED_FACTS), "3DGS")
    assert row.differences == (words,) and not row.agrees


def test_another_split_is_named() -> None:
    views = lego().document["views"]
    mixed = [{**entry, "held_out": index % 3 == 0} for index, entry in enumerate(views[:200] + views[200:])]
    row = on(beside(capture_of("nerf_synthetic/lego", mixed, has_alpha=True), splat(), SHIPPED_FACTS), "3DGS")
    assert "the data set's own test views, ours are others" in row.differences


def test_masks_are_named() -> None:
    views = [{**entry, "mask": "masks/x.png"} for entry in lego().document["views"]]
    row = on(beside(capture_of("nerf_synthetic/lego", views, has_alpha=True), splat(), SHIPPED_FACTS), "3DGS")
    assert row.differences == ("ours is scored under masks",)


def test_another_length_of_training_is_named_for_the_same_method_alone() -> None:
    rows = beside(lego(), splat(budget="120s"), SHIPPED_FACTS)
    assert on(rows, "3DGS").differences == ("trained for 30000 steps, ours for 120s",)
    assert not any("trained" in text for text in on(rows, "NeRF").differences)
    assert rows[0].method == "3DGS"  # that of ours comes first


def test_scores_of_another_definition_are_named() -> None:
    row = on(beside(lego(), splat(definitions={"psnr": "of old"}), SHIPPED_FACTS), "3DGS")
    assert row.differences == ("our psnr is of another definition than this Turntable's",)


def test_a_method_counts_as_the_published_one_only_with_its_settings() -> None:
    (fact,) = (fact for fact in SHIPPED_FACTS.on("nerf_synthetic", "lego") if fact.method == "3DGS")
    assert is_same_method(fact, splat())
    assert not is_same_method(fact, splat(settings={"densification": "mcmc"}))
    assert not is_same_method(fact, splat(reproduces=()))


def test_gsplats_own_numbers_stand_beside_gsplat() -> None:
    gsplat = find_methods()["gsplat"]
    known = load_published(of_methods=gsplat.facts)
    settings = {name: setting.default for name, setting in gsplat.settings.items()}
    ours = splat(method="gsplat", settings=settings, reproduces=gsplat.reproduces)
    rows = [row for row in beside(of_360("garden"), ours, known) if row.metric == "psnr"]
    assert [row.value for row in rows] == [27.32, 26.30] and all(row.same_method for row in rows)
    assert "compared as floats, ours as 8-bit pictures" in rows[0].differences
    assert "at which size isn't said, ours is 1237×822" in rows[0].differences
    assert "trained for 7000 steps of a schedule for 30000, ours for 30000steps" in rows[1].differences
    other = beside(of_360("garden"), replace(ours, settings={**settings, "primitive": "2dgs"}), known)
    assert not any(row.same_method for row in other)


def test_settings_that_are_not_the_methods_usual_ones_are_differences() -> None:
    changed = splat(settings={"densification": "split", "degree": 0}, changed={"degree": 0})
    row = on(beside(lego(), changed, SHIPPED_FACTS), "3DGS")
    assert row.same_method and "ours has degree=0, which is not what splat usually has" in row.differences
    named = splat(changed={"densification": "split"})  # [[reproduces]] says that 3DGS is just that
    assert not any(
        "densification" in text for text in on(beside(lego(), named, SHIPPED_FACTS), "3DGS").differences
    )
    fact = replace(on_scene(), method="splat")
    unknown = beside(lego(), splat(changed=None), Published(SHIPPED_FACTS.datasets, (fact,)))
    assert "the code that ours ran has changed since" in unknown[0].differences[0]


def test_fewer_training_views_are_a_difference() -> None:
    views = [view for view in lego().document["views"] if view["held_out"] or view["name"] < "train/r_5"]
    row = on(beside(capture_of("nerf_synthetic/lego", views, has_alpha=True), splat(), SHIPPED_FACTS), "3DGS")
    assert "100 training views, ours are 45" in row.differences


def test_what_two_versions_of_a_method_tell_is_told_once() -> None:
    facts = find_methods()["gsplat"].facts
    assert load_published(of_methods=[*facts, *facts]) == load_published(of_methods=facts)


def on_scene() -> Fact:
    return next(fact for fact in SHIPPED_FACTS.on("nerf_synthetic", "lego") if fact.method == "3DGS")


def test_numbers_of_another_task_have_nothing_of_ours_beside_them() -> None:
    assert SHIPPED_FACTS.on("dtu", MEAN)
    capture = capture_of("dtu/scan24", lego().document["views"])
    assert beside(capture, splat(), SHIPPED_FACTS) == []


# Means over scenes.


def all_nine(**ours: Any) -> dict[str, tuple[Capture, Ours]]:
    return {scene: (of_360(scene), splat(**ours)) for scene in SHIPPED_FACTS.datasets["mipnerf360"].scenes}


def on_30k(rows: list[Beside], metric: str = "psnr") -> Beside:
    (row,) = (row for row in rows if row.metric == metric and row.value in (27.21, 0.815, 0.214))
    return row


def test_a_mean_of_nine_stands_beside_ours_of_nine() -> None:
    scenes = all_nine()
    scenes["room"] = (of_360("room"), splat(24.0))
    row = on_30k(beside_mean(scenes, "mipnerf360", SHIPPED_FACTS))
    assert (row.value, row.agrees, row.differences) == (27.21, True, ())
    assert row.ours == pytest.approx((8 * 33.0 + 24.0) / 9)


def test_ssim_and_lpips_of_another_definition_never_agree() -> None:
    rows = beside_mean(all_nine(), "mipnerf360", SHIPPED_FACTS)
    assert on_30k(rows, "ssim").differences == ("SSIM zero-padded; ours: valid region",)
    assert on_30k(rows, "lpips-vgg-0.1[-1,1]").differences == ("LPIPS vgg[0,1]; ours: vgg[-1,1]",)


def test_a_mean_of_seven_never_stands_beside_one_of_nine() -> None:
    nine = on(beside_mean(all_nine(), "mipnerf360", SHIPPED_FACTS), "3DGS-MCMC")
    assert nine.ours is None and not nine.agrees
    assert nine.differences[0] == "7 of 9 scenes, ours is of 9; theirs lacks flowers, treehill"
    seven = {scene: pair for scene, pair in all_nine().items() if scene not in ("flowers", "treehill")}
    row = on_30k(beside_mean(seven, "mipnerf360", SHIPPED_FACTS))
    assert (
        row.ours is None and row.differences[0] == "9 of 9 scenes, ours is of 7; ours lacks flowers, treehill"
    )


def test_a_mean_of_seven_never_stands_beside_one_of_another_seven() -> None:
    seven = {scene: pair for scene, pair in all_nine().items() if scene not in ("bicycle", "treehill")}
    row = on(beside_mean(seven, "mipnerf360", SHIPPED_FACTS), "3DGS-MCMC")
    assert row.ours is None
    assert row.differences[0] == "7 of 9 scenes, ours is of 7; ours lacks bicycle; theirs lacks flowers"


def test_scenes_that_are_scored_by_different_definitions_have_no_mean() -> None:
    scenes = all_nine()
    scenes["room"] = (of_360("room"), splat(definitions={"psnr": "as before", "ssim": ssim.DEFINITION}))
    rows = beside_mean(scenes, "mipnerf360", SHIPPED_FACTS)
    row = on_30k(rows)
    assert row.ours is None and not row.agrees
    assert row.differences[0] == "our scenes are scored by different definitions of psnr: score them anew"
    assert on_30k(rows, "ssim").ours is not None


def test_pictures_that_the_authors_resized_are_named() -> None:
    row = on(beside_mean(all_nine(), "mipnerf360", SHIPPED_FACTS), "2DGS")
    assert row.ours is not None and "resized by the authors" in row.differences


def test_pictures_that_we_resized_are_named() -> None:
    scenes = all_nine()
    views = [
        view(f"{i:03}.JPG", i % 8 == 0, (1237, 822), (4946, 3286), f"/d/images/{i}.JPG") for i in range(40)
    ]
    scenes["garden"] = (capture_of("mipnerf360/garden", views), splat())
    row = on_30k(beside_mean(scenes, "mipnerf360", SHIPPED_FACTS))
    assert row.differences == ("the data set's own smaller pictures, ours are resized by Turntable",)


def test_photos_at_their_full_size_are_named() -> None:
    scenes = all_nine()
    scenes["garden"] = (of_360("garden", "images", (4946, 3286)), splat())
    row = on_30k(beside_mean(scenes, "mipnerf360", SHIPPED_FACTS))
    assert row.differences[0] == "4 times smaller than the photos, ours is not (4946×3286)"


def test_a_mean_whose_scenes_nobody_names_has_nothing_beside_it() -> None:
    rows = [
        row for row in beside_mean(all_nine(), "mipnerf360", SHIPPED_FACTS) if row.method == "DashGaussian"
    ]
    assert [row.ours for row in rows] == [None]
    assert rows[0].differences[0] == "over which scenes the mean is, isn't said"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "other"}, "different methods"),
        ({"budget": "1s"}, "different budgets"),
        ({"settings": {"densification": "mcmc"}}, "different settings"),
    ],
)
def test_runs_that_differ_are_never_put_into_one_mean(change: dict[str, Any], words: str) -> None:
    scenes = all_nine()
    scenes["room"] = (of_360("room"), splat(**change))
    with pytest.raises(TurntableError, match=words):
        beside_mean(scenes, "mipnerf360", SHIPPED_FACTS)


def test_a_mean_takes_only_captures_that_are_said_to_be_of_their_scenes() -> None:
    with pytest.raises(TurntableError, match="is said to be of mipnerf360/garden, not of mipnerf360/room"):
        beside_mean({"room": (of_360("garden"), splat())}, "mipnerf360", SHIPPED_FACTS)
    with pytest.raises(TurntableError, match="at least one"):
        beside_mean({}, "mipnerf360", SHIPPED_FACTS)


# Whatever is changed, it is never silent.

PARTS = {
    "views": st.sampled_from([None, 200, 100]),
    "split": st.sampled_from([None, "own", "every 8th"]),
    "background": st.sampled_from([None, "white", "black", "none"]),
    "size": st.sampled_from([None, (800, 800), (400, 400)]),
    "pictures": st.sampled_from([None, "8-bit", "float"]),
    "ssim": st.sampled_from([None, "valid", "zero-padded", "reflected"]),
    "task": st.sampled_from([None, "views", "surface"]),
}
OURS = {
    "views": 200,
    "split": "own",
    "background": "white",
    "size": (800, 800),
    "pictures": "8-bit",
    "ssim": "valid",
    "task": "views",
}


@settings(deadline=None)
@given(st.fixed_dictionaries(PARTS), st.sampled_from(["psnr", "ssim"]))
def test_a_number_agrees_exactly_where_every_part_of_its_protocol_is_known_and_ours(
    parts: dict[str, Any], metric: str
) -> None:
    fact = Fact("nerf_synthetic", "lego", "theirs", metric, 1.0, Protocol(**parts), "a test")
    (row,) = beside(CAPTURE, splat(), Published({}, (fact,)))
    wanted = {part: value for part, value in OURS.items() if part != "ssim" or metric == "ssim"}
    differing = [part for part, value in wanted.items() if parts[part] != value]
    # How many views there are follows from the data set's own split; where only that isn't said, nothing is unknown.
    differing = [part for part in differing if not (part == "views" and parts["views"] is None)]
    assert row.agrees == (not differing)
    assert len(row.differences) == len(differing)


CAPTURE = lego()


@settings(deadline=None)
@given(
    st.sampled_from(METRICS),
    st.sampled_from(["psnr", "ssim", "flip", "lpips-vgg-0.1[-1,1]", "lpips-alex-0.1[-1,1]"]),
)
def test_only_one_metrics_numbers_stand_side_by_side(theirs: str, mine: str) -> None:
    fact = Fact("nerf_synthetic", "lego", "theirs", theirs, 1.0, Protocol(), "a test")
    rows = beside(CAPTURE, splat(values={mine: 1.0}), Published({}, (fact,)))
    assert bool(rows) == (mine.split("-")[0] == theirs)


def test_what_is_not_known_is_said_with_what_is() -> None:
    with pytest.raises(
        TurntableError, match=r"Unknown data set 'nerfsynthetic'.*Did you mean 'nerf_synthetic'"
    ):
        find(SHIPPED_FACTS, "nerfsynthetic")
    with pytest.raises(TurntableError, match="there is something on mean of dtu"):
        find(SHIPPED_FACTS, "dtu/scan24")


def test_a_run_of_ours_is_read_from_the_document_of_scores() -> None:
    run = {
        "method": "splat",
        "scores": {"psnr": {"mean": 31.0, "min": 20.0}},
        "definitions": {"psnr": "d"},
        "budget": "2000steps",
        "settings": {"densification": "mcmc", "degree": 3},
    }
    ours = Ours.of_run(run, find_methods()["splat"])
    assert (ours.values, ours.budget, ours.settings) == ({"psnr": 31.0}, "2000steps", run["settings"])
    assert ours.changed == {"densification": "mcmc"} and ours.reproduces
    gone = Ours.of_run(run, None)
    assert gone.changed is None and gone.reproduces == ()
