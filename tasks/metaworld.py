"""Meta-World control (Yu et al., arXiv:1910.10897) by decision transformers, success at the last of 200 steps.

Protocol: EVA, arXiv:2410.07170v5, section 4.5 and appendix E, and the code base it builds on (L2M: Schmied et al.,
arXiv:2306.14884): the model is asked for the largest return in its training data, what it earns is taken off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eva_bench.models.bundle import ModelBundle
from eva_bench.settings.schema import DataSettings, TrainSettings
from eva_bench.system.errors import UserError
from eva_bench.system.progress import warn
from eva_bench.task import Batch, Evaluation, Example, Task, TrainData, task_config
from tasks.control.environment import ACTION_SIZE, STATE_SIZE, STEPS
from tasks.control.rollout import play, side_by_side
from tasks.control.video import record
from tasks.control.windows import Windows
from tasks.samples import answer_rows

REFERENCE_STRIDE = 20  # of a held-out trajectory of 200 steps, ten windows enter the loss


@task_config
class MetaWorld(Task):
    """One of Meta-World's tasks.

    Attributes:
        environment: its name without version.
        return_target: the return asked for at the start; None: the largest in the training data.
    """

    environment: str
    return_target: float | None
    kind = "decision"

    def train_data(
        self, rows: Sequence[dict], dataset: str, bundle: ModelBundle, data: DataSettings, train: TrainSettings
    ) -> TrainData:
        """Windows of the trajectories; see `Task.train_data`."""
        config = bundle.module.config
        check_trajectories(rows, dataset, config.max_steps)
        returns = [float(np.sum(row["rewards"], dtype=np.float64)) for row in rows]
        self.target((min(returns), max(returns)))
        facts = {
            "rows": len(rows),
            "transitions": sum(len(row["rewards"]) for row in rows),
            "largest_return": max(returns),
        }
        return TrainData(Windows(rows, config.context, config.reward_scale), facts)

    def reference_examples(
        self, rows: Sequence[dict], dataset: str, bundle: ModelBundle, data: DataSettings
    ) -> list[Example]:
        """Windows of the expert's trajectories in the episodes to be played."""
        config = bundle.module.config
        return list(Windows(rows, config.context, config.reward_scale, REFERENCE_STRIDE))

    def target(self, returns: tuple[float, float]) -> float:
        """The return to ask for, given the smallest and largest of the training data. Raises UserError beyond them."""
        if self.return_target is None:
            return returns[1]
        if not returns[0] <= self.return_target <= returns[1]:
            raise UserError(
                f"task.return_target={self.return_target:g} lies outside the returns of the training data of "
                f"'{self.name}', {returns[0]:.0f} to {returns[1]:.0f}."
            )
        return self.return_target

    def length(self, example: Example) -> int:
        """One: all windows are equally long."""
        return len(example["rewards"])

    def loss_count(self, example: Example) -> int:
        """The number of real steps."""
        return len(example["rewards"]) * ACTION_SIZE

    def collate(self, examples: Sequence[Example], bundle: ModelBundle) -> Batch:
        """Windows padded with zeros on the right, and `mask` (n, t), true for real steps."""
        lengths = [len(example["rewards"]) for example in examples]
        n, t = len(examples), max(lengths)
        parts = {name: np.zeros((n, t, *value.shape[1:]), value.dtype) for name, value in examples[0].items()}
        parts["mask"] = np.arange(t) < np.array(lengths)[:, None]
        for i, example in enumerate(examples):
            for name, value in example.items():
                parts[name][i, : lengths[i]] = value
        device = bundle.module.state_mean.device
        return {name: torch.from_numpy(value).to(device) for name, value in parts.items()}

    def loss(self, module: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Squared errors of the actions, summed over real steps and action components."""
        predicted = module(**batch)
        errors = F.mse_loss(predicted.float(), batch["actions"], reduction="none").sum(-1)
        return errors[batch["mask"]].sum(), int(batch["mask"].sum()) * ACTION_SIZE

    def evaluate(self, bundle: ModelBundle, evaluation: Evaluation) -> list[dict]:
        """One episode a row; see `Task.evaluate`."""

        def answer(chunk: Sequence[dict], first: int, answered: Callable) -> list[dict]:
            player = Player(bundle, np.array([self.target(row["returns"]) for row in chunk]))
            seeds = [int(row["seed"]) for row in chunk]

            def observe(rewards: np.ndarray) -> None:
                player.observe(rewards)
                answered(len(chunk) * player.step // STEPS)  # episodes run side by side

            played = play(environments, seeds, player.act, observe)
            return [
                {
                    "row": first + i,
                    "task": self.environment,
                    "seed": seeds[i],
                    "success": bool(played["success"][i]),
                    "success_any": bool(played["success_any"][i]),
                    "return": float(played["return"][i]),
                    "expert_success": bool(row["success"]),
                    "expert_return": float(row["rewards"].sum()),
                }
                for i, row in enumerate(chunk)
            ]

        rows, file = evaluation.rows, evaluation.samples_file
        if evaluation.settings.record_video:
            player = Player(bundle, np.array([self.target(rows[0]["returns"])]))
            if problem := record(self.environment, int(rows[0]["seed"]), player, file.with_name("episode.gif")):
                warn(f"no animation: {problem}")
        size = min(evaluation.settings.batch_size, len(rows))
        with (
            torch.inference_mode(),
            one_thread() as threads,
            side_by_side(self.environment, size, threads) as environments,
        ):
            return answer_rows(rows, file, size, answer, evaluation.progress)

    def score(self, samples: Sequence[dict]) -> dict[str, float]:
        """Success at the last step and at any, mean return, and the scripted expert on the same episodes."""
        names = ("success", "success_any", "return", "expert_success", "expert_return")
        return {name: sum(sample[name] for sample in samples) / len(samples) for name in names}


@contextmanager
def one_thread() -> Iterator[int]:
    """Leave one thread to torch meanwhile; yields how many it had, for environments to step in.

    Idle threads of torch wait busily for a while, on cores that the environments' processes need.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


class Player:
    """A decision transformer in several episodes at once, which have come to the same step.

    Args:
        targets: returns to ask for at the start, (n,).
    """

    def __init__(self, bundle: ModelBundle, targets: np.ndarray):
        self.module, config = bundle.module, bundle.module.config
        self.context, self.scale, n = config.context, config.reward_scale, len(targets)
        self.step = 0
        device = self.module.state_mean.device
        self.seen = {
            "states": torch.zeros(n, STEPS, STATE_SIZE, device=device),
            "returns": torch.zeros(n, STEPS, device=device),
            "actions": torch.zeros(n, STEPS, ACTION_SIZE, device=device),
            "rewards": torch.zeros(n, STEPS, device=device),
            "steps": torch.arange(STEPS, device=device).expand(n, STEPS),
        }
        self.left = targets / self.scale

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Actions (n, 4) after observations (n, 39)."""
        now = self.step
        self.seen["states"][:, now] = torch.from_numpy(observations)
        self.seen["returns"][:, now] = torch.from_numpy(self.left)
        window = slice(max(0, now + 1 - self.context), now + 1)
        actions = self.module(**{name: value[:, window] for name, value in self.seen.items()})[:, -1]
        self.seen["actions"][:, now] = actions
        return actions.float().cpu().numpy()

    def observe(self, rewards: np.ndarray) -> None:
        """Rewards (n,) of the last actions; the return still asked for becomes smaller by them."""
        self.seen["rewards"][:, self.step] = torch.from_numpy(rewards / self.scale)
        self.left = self.left - rewards / self.scale
        self.step += 1


def check_trajectories(rows: Sequence[dict], dataset: str, longest: int) -> None:
    """Raises UserError, naming rows, for trajectories without a step or with more than the model has positions for."""
    lengths = [len(row["rewards"]) for row in rows]
    for problem, found in (
        ("are empty", [i for i, length in enumerate(lengths) if length == 0]),
        (f"have more than the model's {longest} steps", [i for i, length in enumerate(lengths) if length > longest]),
    ):
        if found:
            named = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
            raise UserError(f"{len(found)} of {len(rows)} trajectories of '{dataset}' {problem}: rows {named}.")
