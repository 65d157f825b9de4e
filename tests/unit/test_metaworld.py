"""Control: windows, the loss, the decision transformer, environments and experts, the paper's file layout."""

from __future__ import annotations

import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from eva_bench.methods.base import target_layers
from eva_bench.models import decision
from eva_bench.settings.compose import compose_spec
from eva_bench.settings.schema import EvalSettings
from eva_bench.system.errors import UserError
from eva_bench.system.files import sha256_of
from eva_bench.system.paths import CONF
from eva_bench.task import Evaluation
from pocket.datasets import metaworld as generator
from pocket.pretrain.decision import FOLDER, SIZES, seen_tasks
from tasks import npz
from tasks.control.environment import CW10, Environment, task_names
from tasks.control.experts import demonstrate, policy
from tasks.control.rollout import Environments, play, side_by_side
from tasks.control.windows import Windows
from tasks.metaworld import Player, check_trajectories
from tests.contract.test_decision import TASK
from tests.control import tiny_model, trajectories, write_decision, write_npz
from tests.settings import data_settings, make_task


@pytest.fixture
def bundle(tmp_path):
    return decision.load(tiny_model(write_decision(tmp_path / "tiny")), data_settings(), "cpu")


@pytest.fixture(scope="module")
def task():
    return make_task(TASK)


def test_windows_cover_every_step_and_know_the_return_to_go():
    rows = [*trajectories(1, 5), *trajectories(1, 3, seed=1)]
    windows = Windows(rows, 4, 200.0)
    assert len(windows) == 8
    assert [len(w["rewards"]) for w in windows] == [4, 4, 3, 2, 1, 3, 2, 1]
    last = windows[6]
    assert last["steps"].tolist() == [1, 2]
    assert np.array_equal(last["states"], rows[1]["observations"][1:])
    assert last["returns"] == pytest.approx([rows[1]["rewards"][1:].sum() / 200, rows[1]["rewards"][2] / 200])
    assert [w["steps"][0] for w in Windows(rows, 4, 200.0, stride=2)] == [0, 2, 4, 0, 2]


def test_the_loss_counts_real_steps_only(bundle, task):
    windows = list(Windows(trajectories(1, 6), 4, 200.0))
    batch = task.collate(windows, bundle)
    assert batch["mask"].sum(1).tolist() == [4, 4, 4, 3, 2, 1]
    with torch.no_grad():
        total, count = task.loss(bundle.module, batch)
        alone = [task.loss(bundle.module, task.collate([window], bundle)) for window in windows]
    assert count == sum(task.loss_count(window) for window in windows) == 18 * 4
    assert float(total) == pytest.approx(sum(float(loss) for loss, _ in alone), rel=1e-5)


def test_an_action_depends_on_its_past_and_not_on_itself_or_the_future(bundle, task):
    batch = task.collate([Windows(trajectories(1), 4, 200.0)[0]], bundle)

    def change(name, step):
        changed = {key: value.clone() for key, value in batch.items()}
        changed[name][:, step] += 1
        with torch.no_grad():
            difference = bundle.module(**changed) - bundle.module(**batch)
        return [bool(part.abs().max() > 1e-6) for part in difference[0]]

    assert change("actions", 1) == [False, False, True, True]
    assert change("rewards", 1) == [False, False, True, True]
    assert change("states", 1) == [False, True, True, True]
    assert change("returns", 1) == [False, True, True, True]
    assert change("steps", 3) == [False, False, False, True]


def test_playing_feeds_the_model_what_training_showed_it(bundle, task):
    """A player's call at step t sees the window of steps up to t that training would cut from the same episode."""
    row = trajectories(1)[0]
    window = Windows([row], 4, 200.0)[2]
    with torch.inference_mode():
        expected = bundle.module(**task.collate([window], bundle))[0, -1]
        player = Player(bundle, np.array([row["rewards"].sum(dtype=np.float64)]))
        for step in range(6):
            action = player.act(row["observations"][step][None])[0]
            player.seen["actions"][0, step] = torch.from_numpy(row["actions"][step])
            player.observe(row["rewards"][step][None])
    assert action == pytest.approx(expected.numpy(), abs=1e-5)


def test_the_target_is_the_largest_return_and_never_beyond_the_data(task):
    assert task.target((10.0, 50.0)) == 50.0
    assert make_task(TASK | {"return_target": 20.0}).target((10.0, 50.0)) == 20.0
    with pytest.raises(UserError, match=r"return_target=51 lies outside .* 10 to 50"):
        make_task(TASK | {"return_target": 51.0}).target((10.0, 50.0))


def test_scores_are_of_the_last_step_and_of_any():
    samples = [
        {"success": i < 1, "success_any": i < 3, "return": 10.0 * i, "expert_success": True, "expert_return": 9.0}
        for i in range(4)
    ]
    scores = make_task(TASK).score(samples)
    assert scores == {"success": 0.25, "success_any": 0.75, "return": 15.0, "expert_success": 1.0, "expert_return": 9.0}


def test_there_are_ten_tasks_and_forty_others_of_which_the_pocket_model_knows_those_with_other_objects():
    assert len(task_names()) == 50
    assert len(CW10) == len(set(CW10) & set(task_names())) == 10
    assert len(seen_tasks("paper")) == 40 and not set(seen_tasks("paper")) & set(CW10)
    left_out = {"window-open", "faucet-open", "handle-press", "handle-pull", "handle-pull-side", "stick-push"}
    assert set(seen_tasks("paper")) - set(seen_tasks("pocket")) == left_out | {"peg-insert-side"}


def test_an_unknown_environment_is_refused_with_near_names():
    with pytest.raises(UserError, match=r"no task 'hamer'\. Did you mean 'hammer'"):
        Environment("hamer")


def test_an_environment_that_does_not_start_is_one_sentence(monkeypatch):
    from tasks.control import environment

    def broken(name):
        raise RuntimeError("no simulator")

    monkeypatch.setattr(environment, "_seeded_class", broken)
    with pytest.raises(UserError, match="'push' cannot be created: no simulator"):
        Environment("push")


def test_an_episode_follows_from_its_seed_alone():
    fresh, used = Environment("push-wall"), Environment("push-wall")
    act = policy("push-wall")
    demonstrate(used, act, 7, noise=0.3)
    first, again, other = (demonstrate(e, act, seed, noise=0.3) for e, seed in ((fresh, 3), (used, 3), (used, 4)))
    for name in ("observations", "actions", "rewards"):
        assert np.array_equal(first[name], again[name])
    assert not np.allclose(first["observations"][0, 36:], other["observations"][0, 36:])  # another goal
    assert np.any(first["observations"][0, 36:] != 0)  # and it can be seen


def test_contacts_are_those_of_meta_world():
    """The quicker search for contacts gives what Meta-World's own gives, at every step of a grasp."""
    environment = Environment("push")
    inner, act, seen = environment.env, policy("push"), set()
    slow = type(inner).__mro__[2].touching_object
    observation = environment.reset(0)
    for _ in range(90):
        observation, *_ = environment.step(act(observation))
        puck = inner._get_id_main_object()
        assert inner.touching_object(puck) == slow(inner, puck)
        seen.add(inner.touching_object(puck))
    assert seen == {True, False}


@pytest.mark.parametrize("name", ["handle-press-side", "faucet-close"])
def test_experts_hold_what_they_have_reached(name):
    played = demonstrate(Environment(name), policy(name), 11)
    assert played["success"] and played["success_any"]
    assert np.abs(played["actions"]).max() <= 1


def test_noise_changes_returns():
    environment, act = Environment("window-close"), policy("window-close")
    assert demonstrate(environment, act, 5)["rewards"].sum() != demonstrate(environment, act, 5, 0.4)["rewards"].sum()


def test_workers_give_what_one_process_gives():
    generator = np.random.default_rng(0)
    actions = generator.uniform(-1, 1, size=(3, 4))
    with side_by_side("reach", 3, 1) as alone, side_by_side("reach", 3, 2) as shared:
        assert isinstance(alone, Environments) and not isinstance(shared, Environments)
        assert np.array_equal(alone.reset([1, 2, 3]), shared.reset([1, 2, 3]))
        for _ in range(3):
            for one, other in zip(alone.step(actions), shared.step(actions), strict=True):
                assert np.array_equal(one, other)
        assert shared.reset([4]).shape == (1, 39)  # the last chunk of an evaluation may be smaller


def test_torch_computes_with_one_thread_while_environments_have_the_cores(monkeypatch, tmp_path):
    seen = []

    @contextmanager
    def asked(name, count, workers):
        seen.append((count, workers, torch.get_num_threads()))
        raise UserError("seen")
        yield

    monkeypatch.setattr("tasks.metaworld.side_by_side", asked)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        rows, settings = trajectories(2), EvalSettings(batch_size=8)
        evaluation = Evaluation(rows, "push", settings, data_settings(), tmp_path / "samples", lambda *_: None)
        with pytest.raises(UserError, match="seen"):
            make_task(TASK).evaluate(tiny_model(tmp_path), evaluation)
        assert seen == [(2, 3, 1)] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_success_at_the_last_step_is_not_success_at_any(monkeypatch):
    class Scripted:
        def reset(self, seeds):
            self.step_number = 0
            return np.zeros((2, 39))

        def step(self, actions):
            self.step_number += 1
            successes = np.array([self.step_number == 5, self.step_number >= 199])
            return np.zeros((2, 39)), np.array([1.0, 2.0]), successes

    played = play(Scripted(), [0, 1], lambda observations: np.zeros((2, 4)), lambda rewards: None)
    assert played["success"].tolist() == [False, True]
    assert played["success_any"].tolist() == [True, True]
    assert played["return"].tolist() == [200.0, 400.0]


def test_demonstrations_are_kept_on_disk_and_a_damaged_file_is_played_again(monkeypatch, tmp_path):
    monkeypatch.setattr(generator, "FOLDER", tmp_path)
    monkeypatch.setattr(generator, "SIZES", {"train": 2, "validation": 1, "test": 1})
    generator.episodes.cache_clear()
    rows = generator.generate("train", "reach")
    test = generator.generate("test", "reach")
    returns = [row["rewards"].sum() for row in rows]
    assert test[0]["returns"] == (min(returns), max(returns))
    assert {int(row["seed"]) for row in rows}.isdisjoint(int(row["seed"]) for row in test)
    anew = generator.generate("test", "reach", draw=1)
    assert anew[0]["seed"] != test[0]["seed"] and anew[0]["returns"] == test[0]["returns"]
    generator.episodes.cache_clear()
    for file in tmp_path.glob("*-train-*"):
        file.write_bytes(b"damaged")
    again = generator.generate("train", "reach")
    assert all(np.array_equal(a["observations"], b["observations"]) for a, b in zip(rows, again, strict=True))
    generator.episodes.cache_clear()


def test_the_fingerprint_knows_task_and_sizes(monkeypatch):
    before = generator.fingerprint("push")
    assert before == generator.fingerprint("push") != generator.fingerprint("hammer")
    monkeypatch.setattr(generator, "NOISE", 0.1)
    assert generator.fingerprint("push") != before


@pytest.mark.parametrize("compressed", [False, True])
def test_the_paper_s_layout_is_read_and_mapped(compressed, tmp_path):
    rows = [*trajectories(2, 7), *trajectories(1, 4, seed=3)]
    read = npz.read(write_npz(tmp_path / "push-v2.npz", rows, compressed))
    assert [len(row["rewards"]) for row in read] == [7, 7, 4]
    for row, original in zip(read, rows, strict=True):
        assert all(np.array_equal(row[name], original[name]) for name in original)
    assert isinstance(read[0]["observations"], np.memmap) != compressed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": None}, "has no array rewards; it has actions, dones, observations"),
        ({"actions": np.zeros((14, 6), np.float32)}, r"actions has shape \(14, 6\), not \(14, 4\)"),
        ({"observations": np.zeros((14, 12), np.float32)}, r"observations has shape \(14, 12\), not \(14, 39\)"),
        ({"dones": np.zeros(14, bool)}, "the last transition ends no episode"),
        ({"rewards": np.zeros(0, np.float32)}, "trajectories are empty"),
    ],
)
def test_broken_files_are_refused_in_one_sentence(changes, message, tmp_path):
    file = write_npz(tmp_path / "push-v2.npz", trajectories(2, 7), **changes)
    with pytest.raises(UserError, match=message):
        npz.read(file)


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    file = tmp_path / "push-v2.npz"
    file.write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"Cannot read push-v2\.npz"):
        npz.read(file)


def test_empty_and_overlong_trajectories_are_refused_by_row():
    rows = [*trajectories(1), *trajectories(1, 0), *trajectories(1, 9)]
    with pytest.raises(UserError, match="1 of 3 trajectories of 'd' are empty: rows 1"):
        check_trajectories(rows, "d", 200)
    with pytest.raises(UserError, match="more than the model's 10 steps: rows 0"):
        check_trajectories(rows[:1], "d", 10)


def test_the_committed_weights_are_those_of_the_manifest():
    facts = json.loads((FOLDER / "manifest.json").read_text())
    for name, checksum in facts["sha256"].items():
        assert sha256_of(FOLDER / name) == checksum
    assert facts["parameters"] <= 2e6 and facts["data_version"] == generator.VERSION
    assert list(facts["success_by_task"]) == seen_tasks("pocket")
    assert decision._config(FOLDER) == SIZES["pocket"]


def test_every_task_has_its_yaml_and_its_data():
    names = {path.stem for path in (CONF / "task" / "metaworld").glob("*.yaml")}
    assert names == set(CW10)
    for name in names:
        spec = compose_spec(["method=eva", f"task=metaworld/{name}"])
        assert spec.identity.train_data.sha256 == generator.fingerprint(name)


def test_a_rank_beyond_the_action_head_is_refused_by_name(bundle):
    with pytest.raises(UserError, match="rank 8 is larger than layer 'action_head'"):
        target_layers(bundle, 8)


def test_stored_episodes_that_are_damaged_are_noticed_and_absent_ones_are_not(tmp_path, capsys):
    from pocket.datasets import metaworld

    assert metaworld._read(tmp_path / "absent.npz") is None and not capsys.readouterr().err
    (tmp_path / "half.npz").write_bytes(b"PK\x03\x04 and no more")
    assert metaworld._read(tmp_path / "half.npz") is None
    assert "half.npz cannot be read" in capsys.readouterr().err
