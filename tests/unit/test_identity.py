"""What identifies a run: names, versions and values; never where a class lives."""

from __future__ import annotations

import hashlib
import os
import time

import pytest

from eva_bench.assets import catalogue, identity
from eva_bench.assets.identity import cached_sha256, data_identity
from eva_bench.methods.base import Method
from eva_bench.settings.build import build
from eva_bench.settings.compose import compose_spec
from eva_bench.settings.spec import RunSpec
from eva_bench.system.errors import UserError
from eva_bench.task import Task


@pytest.fixture(scope="module")
def spec() -> RunSpec:
    return compose_spec(["method=lora", "task=gsm8k"])


def ids(spec: RunSpec) -> tuple[str, str, str]:
    return spec.run_id, spec.train_id, spec.init_id


def test_a_class_that_moves_to_another_module_keeps_its_runs(spec, tmp_path, monkeypatch):
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "adapters.py").write_text("from baselines.lora import LoRA as TheSame\n")
    monkeypatch.syspath_prepend(tmp_path)
    again = spec.model_copy(update={"method": spec.method.model_copy(update={"target": "elsewhere.adapters.TheSame"})})
    assert again.method.target != spec.method.target and ids(again) == ids(spec)
    assert build(again.method, Method) == build(spec.method, Method)


@pytest.mark.parametrize("choice", ["method", "task"])
def test_another_version_is_another_run(choice, spec):
    newer = getattr(spec, choice).model_copy(update={"version": 2})
    again = spec.model_copy(update={choice: newer})
    assert again.run_id != spec.run_id
    assert (again.init_id != spec.init_id) == (choice == "method")


def test_the_version_is_written_in_the_yaml_and_not_handed_to_the_class(spec):
    again = compose_spec(["method=lora", "task=gsm8k", "+method.version=2"])
    assert again.method.version == 2 and again.run_id != spec.run_id
    assert build(again.method, Method) == build(spec.method, Method)


@pytest.mark.parametrize("target", ["os.system", "json.JSONDecoder", "nosuch.module.Class", "eva_bench.task.Task", ""])
def test_a_target_that_is_no_method_is_refused_and_never_called(target, spec):
    with pytest.raises(UserError, match=r"method\._target_="):
        compose_spec(["method=lora", "task=gsm8k", f"method._target_='{target}'"])
    with pytest.raises(UserError, match=r"method\._target_="):
        build(spec.method.model_copy(update={"target": target}), Method)


def test_a_task_is_built_from_its_choice(spec):
    task = build(spec.task, Task)
    assert (task.name, task.family) == ("gsm8k", "math")


@pytest.mark.parametrize("replaced", [False, True], ids=["written over", "replaced"])
def test_other_weights_of_the_same_size_and_time_stamp_are_noticed(replaced, tmp_path):
    file, other = tmp_path / "model.safetensors", tmp_path / "other"
    file.write_bytes(b"a" * 100)
    stamps = file.stat()
    assert cached_sha256(file, str(tmp_path)) == hashlib.sha256(b"a" * 100).hexdigest()
    time.sleep(0.05)  # clocks of file systems are coarse
    if replaced:
        other.write_bytes(b"b" * 100)
        other.replace(file)
    else:
        file.write_bytes(b"b" * 100)
    os.utime(file, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    assert file.stat().st_mtime_ns == stamps.st_mtime_ns
    assert cached_sha256(file, str(tmp_path)) == hashlib.sha256(b"b" * 100).hexdigest()


def test_generated_rows_are_made_again_when_the_code_of_their_generator_changes(tmp_path, monkeypatch):
    package, calls = tmp_path / "made", tmp_path / "calls"
    package.mkdir()
    (package / "rows.py").write_text(
        f"def fingerprint(subset):\n    open({str(calls)!r}, 'a').write(subset)\n    return subset * 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(catalogue, "manifest", lambda: {"rows": {"generator": "made.rows", "subset": "x"}})

    def found() -> str:
        identity._generated_sha256.cache_clear()  # as in another process
        return data_identity("rows", None, str(tmp_path / "runs")).sha256

    assert [found(), found()] == ["xx", "xx"] and calls.read_text() == "x"
    (package / "templates.py").write_text("WORDS = ['other']\n")  # the rows may come from any module of the package
    assert found() == "xx" and calls.read_text() == "xx"
