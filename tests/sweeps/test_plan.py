"""From suite and command line to cells: narrowing, near misses, the same fingerprints as single runs, freezing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from eva_bench.settings.compose import compose_spec
from eva_bench.sweeps import plan as plan_module
from eva_bench.sweeps.execute import left_to_do, spread_config
from eva_bench.sweeps.plan import make_plan, read_suite
from eva_bench.sweeps.request import is_sweep, read_request
from eva_bench.sweeps.worker import read_cells, write_cells
from eva_bench.system import paths
from eva_bench.system.errors import UserError
from eva_bench.system.paths import choices
from tests.conftest import CONF, ROOT


@pytest.fixture
def base(checkpoint, tmp_path) -> list[str]:
    return [
        f"model.path={checkpoint('smollm2_135m')}",
        f"results_dir={tmp_path / 'results'}",
        f"runs_dir={tmp_path / 'runs'}",
    ]


def cells(plan) -> list[tuple]:
    return [(c.spec.method.name, c.spec.seed, *c.settings) for c in plan.cells]


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A function that writes a suite beside a copy of the others; conf/ itself stays as it is."""
    import shutil

    folder = tmp_path / "conf"
    shutil.copytree(CONF, folder)
    monkeypatch.setattr(paths, "CONF", folder)

    def write(text: str) -> None:
        (folder / "suite/mine.yaml").write_text(text)

    return write


@pytest.mark.parametrize("name", choices("suite"))
def test_every_suite_plans_cells_and_says_how_to_run_it(name, base, request):
    if any(grid.get("scale") == "small" for grid in read_suite(name)["grids"]):  # real data
        folder = request.getfixturevalue("real_data")
        model = folder / "models/sentence-transformers/all-MiniLM-L6-v2"
        base = [*base[1:], f"data.root={folder / 'hub'}", f"model.path={model}"]
    plan = make_plan(name, [*base, "seed=0", "method=eva", "train.lr=1e-3"])
    assert plan.cells and len({cell.run_id for cell in plan.cells}) == len(plan.cells)
    text = (CONF / "suite" / f"{name}.yaml").read_text()
    assert text.startswith(f"# python run.py suite={name}")


def test_a_list_in_a_list_is_one_value(base, suite):
    suite("grids: [{task: gsm8k, method: lora, model.targets: [[q_proj, v_proj], [o_proj]]}]")
    targets = [cell.spec.model.targets for cell in make_plan("mine", base).cells]
    assert targets == [["q_proj", "v_proj"], ["o_proj"]]


def test_a_cell_of_a_suite_is_the_same_run_as_the_single_command(base):
    for cell in make_plan("rank", [*base, "adapter.rank=2,4", "method=lora,eva", "seed=1,2"]).cells:
        v = cell.spec
        single = [f"method={v.method.name}", "task=gsm8k", f"adapter.rank={v.adapter.rank}", f"seed={v.seed}", *base]
        assert compose_spec(single).run_id == cell.run_id
        assert set(compose_spec(single).origins.command_line) == set(v.origins.command_line)


def test_composed_settings_are_remembered_until_conf_changes(suite, base, monkeypatch):
    suite("title: x\ngrids:\n  - {task: gsm8k, method: lora, seed: 0}\n")
    first = make_plan("mine", base).cells[0].run_id
    with monkeypatch.context() as known:
        known.setattr(plan_module, "compose_settings", None)  # a call would fail
        assert make_plan("mine", base).cells[0].run_id == first
        assert make_plan("mine", [*base, "seed=7"]).cells[0].spec.seed == 7
    recipe = paths.CONF / "recipe/pocket/math.yaml"
    recipe.write_text(recipe.read_text().replace("steps: ", "steps: 1"))
    assert make_plan("mine", base).cells[0].run_id != first


def test_the_command_line_narrows_methods_and_replaces_values(suite, base):
    suite(
        "title: x\ngrids:\n  - {task: gsm8k, method: [lora, eva], seed: [0, 1]}\n"
        "  - {task: gsm8k, method: eva, method.rho: [1, 1.5], seed: 0}\n"
    )
    everything = cells(make_plan("mine", base))
    assert everything == [
        ("lora", 0),
        ("eva", 0),
        ("eva", 0, "method.rho=1"),
        ("eva", 0, "method.rho=1.5"),
        ("lora", 1),
        ("eva", 1),
    ]
    assert cells(make_plan("mine", [*base, "method=lora"])) == [("lora", 0), ("lora", 1)]
    assert cells(make_plan("mine", [*base, "method=eva", "seed=4"]))[0] == ("eva", 4)
    assert len(make_plan("mine", [*base, "method=eva", "seed=4"]).cells) == 3
    assert cells(make_plan("mine", [*base, "method=eva", "method.rho=3", "seed=range(0,2)"])) == [
        ("eva", 0, "method.rho=3"), ("eva", 1, "method.rho=3"),
    ]  # fmt: skip
    # A method that the suite does not name runs on its first grid.
    assert cells(make_plan("mine", [*base, "method=pissa,lora", "seed=0"])) == [("pissa", 0), ("lora", 0)]


def test_globs_ranges_and_quotes_of_hydra_work_in_suites(suite, base):
    suite(
        "title: x\ngrids:\n  - {task: 'glob(gsm*)', method: lora, seed: 'range(0,3)', model.attention: [sdpa, eager]}\n"
    )
    assert len(make_plan("mine", base).cells) == 6
    assert len(make_plan(None, [*base, "method=glob(lora*)", "task=gsm8k"]).cells) == len(
        [m for m in choices("method") if m.startswith("lora")]
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("gsmk8",), "Unknown suite 'gsmk8'. Did you mean 'gsm8k'"),
        (("smoke", "method=lroa"), "Unknown method 'lroa'"),
        (("smoke", "train.lrr=1"), "Unknown setting 'train.lrr'"),
        (("smoke", "method=glob(nothing*)"), "'smoke' plans no cells with"),
        (("smoke", "seed=one"), "one"),
        (("rho", "method=lora,eva", "method.rho=2"), "method.rho"),
        (("smoke", "train.lr=interval(0,1)"), "is not a list of values"),
    ],
)
def test_a_mistake_in_any_cell_is_one_sentence_and_nothing_is_planned(arguments, expected, base):
    with pytest.raises(UserError) as error:
        make_plan(arguments[0], [*base, *arguments[1:]])
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_no_cells_are_exit_code_2(command, base):
    code, _, err = command("suite=smoke", "method=glob(nothing*)", *base)
    assert code == 2 and err.strip().startswith("error: 'smoke' plans no cells")
    code, _, err = command("-m", "task=gsm8k", "method=glob(nothing*)", *base)
    assert code == 2 and "plans no cells" in err


def test_a_dry_run_lists_cells_and_writes_no_record(command, base, tmp_path):
    code, out, _ = command("suite=smoke", "dry_run=true", "seed=0,1", *base)
    assert code == 0 and out.count("initialisation, training, evaluation") == 14 and "14 cells: 14 missing" in out
    assert not (tmp_path / "results").exists()


def test_queued_cells_do_not_change_with_conf(suite, base, tmp_path):
    suite("title: x\ngrids:\n  - {task: gsm8k, method: lora, seed: 0}\n")
    plan = make_plan("mine", base)
    write_cells(tmp_path / "cells.jsonl", [cell.spec for cell in plan.cells])
    recipe = paths.CONF / "recipe/pocket/math.yaml"
    recipe.write_text(recipe.read_text().replace("steps: ", "steps: 1"))
    (frozen,) = read_cells(tmp_path / "cells.jsonl")
    assert frozen == plan.cells[0].spec and frozen.run_id == plan.cells[0].run_id
    assert make_plan("mine", base).cells[0].run_id != frozen.run_id


def test_site_values_reach_the_launcher_and_the_command_line_wins(suite, base, monkeypatch):

    (paths.CONF / "site.yaml").write_text(
        "array_size: 7\nlauncher:\n  partition: gpu\n  setup: [module load cuda]\n  mem_gb: 3\n"
    )
    plan = make_plan("smoke", [*base, "method=lora"])
    config = spread_config(read_request(["suite=smoke", "hydra/launcher=slurm", "hydra.launcher.mem_gb=5"]), plan)
    launcher = config.hydra.launcher
    assert (launcher.partition, list(launcher.setup), launcher.mem_gb) == ("gpu", ["module load cuda"], 5)
    assert config.array_size == config.hydra.sweeper.max_batch_size == 7
    with pytest.raises(UserError, match="partitoin"):
        spread_config(read_request(["suite=smoke", "hydra/launcher=slurm", "hydra.launcher.partitoin=x"]), plan)


def test_the_example_of_a_site_file_is_valid(suite, base, monkeypatch):

    (paths.CONF / "site.example.yaml").rename(paths.CONF / "site.yaml")
    plan = make_plan("smoke", [*base, "method=lora"])
    assert spread_config(read_request(["hydra/launcher=slurm"]), plan).hydra.launcher.gpus_per_node == 1
    spread_config(read_request(["hydra/launcher=local"]), plan)


def test_only_what_is_not_done_is_left_to_do(command, small_run, places):
    from eva_bench.sweeps.status import examine

    arguments = ["method=lora,pissa", *small_run, *places]
    assert command("suite=smoke", *arguments[:1], *arguments[1:], "seed=0")[0] == 0
    states = examine(make_plan("smoke", [*arguments, "seed=0,1"]))
    assert [(spec.method.name, spec.seed) for spec in left_to_do(states)] == [("lora", 1), ("pissa", 1)]
    assert len(left_to_do(examine(make_plan("smoke", [*arguments, "seed=0,1", "force=true"])))) == 4


def test_planning_and_status_never_import_torch(base):
    call = "from eva_bench.sweeps import status; status.main(sys.argv[1:])"
    code = f"import sys; {call}; sys.exit(3 if 'torch' in sys.modules else 0)"
    done = subprocess.run(
        [sys.executable, "-c", code, "suite=smoke", "--json", *base], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout[done.stdout.index("[\n") :])) == 7


def test_a_folder_of_tasks_stands_for_all_of_them(suite, base):
    """Unless a task of that name exists, which then is what is meant."""
    folder = paths.CONF / "task" / "sums"
    folder.mkdir()
    text = (paths.CONF / "task" / "gsm8k.yaml").read_text()
    for name in ("sums/a", "sums/b"):
        (folder / f"{name[-1]}.yaml").write_text(text.replace("name: gsm8k", f"name: {name}"))
    assert is_sweep(["method=lora", "task=sums"]) and not is_sweep(["method=lora", "task=sums/a"])
    plan = make_plan(None, ["method=lora", "task=sums", *base])
    assert [cell.spec.task.name for cell in plan.cells] == ["sums/a", "sums/b"]
    (paths.CONF / "task" / "sums.yaml").write_text(text.replace("name: gsm8k", "name: sums"))
    assert not is_sweep(["method=lora", "task=sums"])
