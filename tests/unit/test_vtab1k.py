"""Images, the archive, the pocket world and the task of VTAB-1K."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from eva_bench.assets import catalogue
from eva_bench.assets.identity import data_identity
from eva_bench.system.errors import UserError
from eva_bench.system.files import sha256_of
from eva_bench.system.paths import POCKET_WEIGHTS
from eva_bench.task import Evaluation
from pocket.datasets import vtab1k
from pocket.datasets.vtab_scenes import SCENES
from pocket.world.image_scenes import SHAPES, Scene, Surface, Thing, grey, render
from tasks import images
from tasks.vtab_archive import LISTS
from tests.conftest import CONF
from tests.settings import data_settings, eval_settings, task_of, train_settings
from tests.vision import load_vit

NAMES = sorted(path.stem for path in (CONF / "task/vtab1k").glob("*.yaml"))
GROUPS = {"natural": 7, "specialised": 4, "structured": 8}


def test_nineteen_tasks_in_three_groups_with_the_official_classes():
    entries = {name: catalogue.entry(f"vtab1k/{name}") for name in NAMES}
    assert len(NAMES) == 19 and set(vtab1k.TASKS) == set(NAMES)
    assert {group: sum(e["group"] == group for e in entries.values()) for group in GROUPS} == GROUPS
    assert sum(e["classes"] for e in entries.values()) == 940
    for name in NAMES:
        task = task_of(f"vtab1k/{name}")
        assert (task.name, task.dataset, task.pocket) == (f"vtab1k/{name}", f"vtab1k/{name}", f"pocket/vtab1k/{name}")
        assert task.outputs == entries[name]["classes"]


@pytest.mark.parametrize("name", vtab1k.TASKS)
def test_pocket_rows_are_reproducible_even_and_within_the_classes(name):
    rows = vtab1k.generate("test", name, 60)
    again = vtab1k.generate("test", name, 60)
    assert all(
        np.array_equal(a["image"], b["image"]) and a["label"] == b["label"] for a, b in zip(rows, again, strict=True)
    )
    assert all(row["image"].shape == (32, 32, 3) and row["image"].dtype == np.uint8 for row in rows)
    classes = catalogue.entry(f"vtab1k/{name}")["classes"]
    labels = [row["label"] for row in rows]
    assert all(0 <= label < classes for label in labels) and len(set(labels)) >= min(classes, 20) * 0.5
    train = {row["image"].tobytes() for row in vtab1k.generate("train", name, 60)}
    anew = vtab1k.generate("test", name, 60, draw=3)
    assert not {row["image"].tobytes() for row in anew} & {row["image"].tobytes() for row in rows}
    assert not train & {row["image"].tobytes() for row in [*rows, *anew]}
    assert vtab1k.fingerprint(name) == vtab1k.fingerprint(name)


def test_training_on_everything_is_train_and_validation():
    rows = vtab1k.generate("train_validation", "kitti", 5)
    parts = [*vtab1k.generate("train", "kitti", 5), *vtab1k.generate("validation", "kitti", 5)]
    assert [row["label"] for row in rows] == [row["label"] for row in parts]
    assert len(vtab1k.generate("train_validation", "kitti")) == 1000


def test_scans_of_digits_are_in_one_split_only_and_none_is_drawn_much_more_often_than_others():
    scans = {split: {scan.tobytes() for scan, _ in vtab1k._scans(split)} for split in vtab1k.SIZES}
    assert not scans["train"] & scans["test"] and not scans["train"] & scans["validation"]
    assert not scans["test"] & scans["validation"]
    rows = vtab1k.generate("test", "svhn", 900, draw=1)
    assert len({row["image"].tobytes() for row in rows}) == 900


def test_labels_say_what_was_drawn():
    rng = np.random.default_rng(0)
    for label in range(8):
        assert len(SCENES["clevr_count"][1](label, rng).things) == 3 + label
    columns = [SCENES["dsprites_loc"][1](label, rng).things[0].x for label in range(16)]
    assert columns == sorted(columns)
    assert len(SCENES["kitti"][1](3, rng).things) == len(SCENES["kitti"][1](0, rng).things) - 1
    near, far = (min(t.y for t in SCENES["clevr_dist"][1](label, rng).things[-1:]) for label in (0, 5))
    assert near > far


def test_a_thing_lies_where_it_was_put():
    scene = Scene(Surface(grey(0.0)), [Thing("circle", Surface(grey(1.0)), 0.75, 0.25, 0.15)])
    image = render(scene, np.random.default_rng(0)).astype(float)[..., 0]
    y, x = (float((grid * image).sum() / image.sum() + 0.5) / 32 for grid in np.mgrid[:32, :32])
    assert x == pytest.approx(0.75, abs=0.02) and y == pytest.approx(0.25, abs=0.02)
    assert image.sum() / 255 / 1024 == pytest.approx(np.pi * 0.15**2, rel=0.1)
    assert all(abs(u) <= 1.01 and abs(v) <= 1.01 for points in SHAPES.values() for u, v in points)


def test_decoding_is_pils_bicubic_resize_and_workers_give_the_same(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i in range(images.FEW + 1):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8)).save(paths[-1])
    tensor = images.decode(paths[0], 8, "bicubic")
    wanted = np.asarray(Image.open(paths[0]).resize((8, 8), Image.Resampling.BICUBIC))
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), wanted)
    here = torch.cat(list(images.stream(paths, 8, "bicubic", 64, 0)))
    there = torch.cat(list(images.stream(paths, 8, "bicubic", 64, 2)))
    assert torch.equal(here, there) and torch.equal(here[0], tensor)
    (tmp_path / "7.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"7\.png' cannot be decoded"):
        list(images.stream(paths, 8, "bicubic", 64, 2))


def test_images_are_kept_and_arrays_are_not_confused():
    first = [np.full((4, 4, 3), i, np.uint8) for i in range(3)]
    tensor = images.decoded(first, 4, "bicubic")
    assert images.decoded(first, 4, "bicubic") is tensor
    assert images.decoded([a.copy() + 1 for a in first], 4, "bicubic").float().mean() == tensor.float().mean() + 1
    assert images.decoded(first, 8, "bicubic").shape == (3, 3, 8, 8)


def test_the_archive_gives_the_rows_that_were_written(tmp_path):
    vtab1k.write(tmp_path, "cifar100", {"train": 6, "validation": 3, "test": 5})
    for split, n in (("train", 6), ("validation", 3), ("train_validation", 9), ("test", 5)):
        rows = _load(tmp_path, split)
        assert len(rows) == n and (tmp_path / "cifar100" / LISTS[split]).is_file()
    wanted = vtab1k.generate("test", "cifar100", 5)
    for row, pocket in zip(_load(tmp_path, "test"), wanted, strict=True):
        assert np.array_equal(np.asarray(Image.open(row["image"])), pocket["image"]) and row["label"] == pocket["label"]


def _load(root, split):
    from tasks import vtab_archive

    return vtab_archive.load({"folder": "cifar100", "classes": 100}, "vtab1k/cifar100", split, str(root))


def test_another_copy_of_the_images_is_another_identity(tmp_path):
    vtab1k.write(tmp_path, "kitti", {"train": 6, "validation": 3, "test": 5})
    where = (str(tmp_path), str(tmp_path / "runs"))
    before = data_identity("vtab1k/kitti", *where)
    assert before == data_identity("vtab1k/kitti", *where) and "officially 800" in before.deviation
    assert before.rows == {"train": 6, "validation": 3, "train_validation": 9, "test": 5}
    path = tmp_path / "kitti/images/test/000000.png"
    Image.open(path).save(path, compress_level=0)
    assert data_identity("vtab1k/kitti", *where).images != before.images


def test_samples_scores_and_training_examples(tmp_path):
    task, bundle = task_of("vtab1k/kitti"), load_vit("pocket_vision", None, outputs=4)
    rows = vtab1k.generate("test", "kitti", 23)
    settings = (eval_settings(batch_size=5, chunk=8), data_settings())
    file = tmp_path / "samples.jsonl"
    samples = task.evaluate(bundle, Evaluation(rows, "vtab1k/kitti", *settings, file, lambda done, total: None))
    assert [s["row"] for s in samples] == list(range(23)) and [s["label"] for s in samples] == [
        r["label"] for r in rows
    ]
    data = task.train_data(rows, "vtab1k/kitti", bundle, data_settings(), train_settings())
    batch = task.collate(data.examples, bundle)
    assert batch["x"].shape == (23, 3, 32, 32) and batch["x"].abs().max() <= 1
    with torch.no_grad():
        total, count = task.loss(bundle.module, batch)
    assert count == 23 and data.facts["rows"] == 23
    assert task.score(samples)["reference_loss"] == pytest.approx(float(total) / count, abs=1e-5)
    assert task.score(samples)["accuracy"] == sum(s["prediction"] == s["label"] for s in samples) / 23
    assert float(total) / count == pytest.approx(np.log(4), abs=0.01)  # the head starts near zero
    with pytest.raises(UserError, match="Row 1 of 'vtab1k/kitti' has class 4"):
        task.train_data([rows[0], rows[1] | {"label": 4}], "vtab1k/kitti", bundle, data_settings(), train_settings())


def test_the_pocket_model_is_the_one_of_its_manifest():
    folder = POCKET_WEIGHTS / "vision"
    manifest = yaml.safe_load((folder / "manifest.json").read_text())
    assert manifest["sha256"] == {name: sha256_of(folder / name) for name in manifest["sha256"]}
    assert manifest["parameters"] <= 1_000_000
