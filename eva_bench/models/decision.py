"""Decision transformers (Chen et al., arXiv:2106.01345) as bundles: continuous tokens through GPT-2 blocks.

Every time step is four tokens, each one linear map of a number or vector: state, return to go, action, reward. The
action of a step is read at its return token, which sees the state, the return and all steps before it. The position
embedding counts the steps of the episode, not the tokens of the window (EVA, arXiv:2410.07170v5, appendix E).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

from eva_bench.assets.identity import model_folder
from eva_bench.models import checkpoint
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import find_targets
from eva_bench.settings.schema import DataSettings, ModelSettings
from eva_bench.system.errors import UserError

TOKENS = 4  # of a time step


@dataclass(frozen=True)
class DecisionConfig:
    """A checkpoint's `config.json`.

    Attributes:
        context: time steps of a window.
        max_steps: of an episode.
        reward_scale: rewards and returns are divided by it.
        sees_actions: whether past actions enter as they are or as zeros. Trained on few demonstrations, a model that
            sees them repeats them instead of looking at the state (de Haan et al., arXiv:1905.11979).
    """

    layers: int
    heads: int
    width: int
    context: int
    dropout: float
    state_size: int = 39
    action_size: int = 4
    max_steps: int = 1000
    reward_scale: float = 200.0
    sees_actions: bool = True


class DecisionTransformer(nn.Module):
    """Actions from windows of states, returns to go, actions and rewards.

    The buffers `state_mean` and `state_scale` standardise states; 0 and 1 leave them as they are.
    """

    def __init__(self, config: DecisionConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.register_buffer("state_mean", torch.zeros(config.state_size))
        self.register_buffer("state_scale", torch.ones(config.state_size))
        self.embed_state = nn.Linear(config.state_size, width)
        self.embed_return = nn.Linear(1, width)
        self.embed_action = nn.Linear(config.action_size, width)
        self.embed_reward = nn.Linear(1, width)
        self.embed_norm = nn.LayerNorm(width)
        dropout = {name: config.dropout for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
        blocks = GPT2Config(
            vocab_size=1,
            n_positions=config.max_steps,
            n_embd=width,
            n_layer=config.layers,
            n_head=config.heads,
            activation_function="gelu_pytorch_tanh",  # GPT-2's own, in one operation
            use_cache=False,
            attn_implementation="sdpa",
            bos_token_id=None,
            eos_token_id=None,
            **dropout,
        )
        self.blocks = GPT2Model(blocks)
        self.blocks.wte = nn.Identity()  # there are no words
        self.action_head = nn.Linear(width, config.action_size)

    def forward(
        self,
        states: Tensor,
        returns: Tensor,
        actions: Tensor,
        rewards: Tensor,
        steps: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Predicted actions (n, t, action_size) within [-1, 1].

        Args:
            states: (n, t, state_size).
            returns: (n, t), already divided by `reward_scale`.
            actions: (n, t, action_size); that of a step is not seen by its own prediction.
            rewards: (n, t), divided as returns are.
            steps: (n, t), counted from 0 at the start of the episode.
            mask: (n, t), false where a window is padded on the right. Not needed here: attention looks back only.
        """
        n, t = steps.shape
        states = (states - self.state_mean) / self.state_scale
        if not self.config.sees_actions:
            actions = torch.zeros_like(actions)
        embedded = (
            self.embed_state(states),
            self.embed_return(returns[..., None]),
            self.embed_action(actions),
            self.embed_reward(rewards[..., None]),
        )
        sequence = self.embed_norm(torch.stack(embedded, dim=2).view(n, TOKENS * t, -1))
        positions = steps.repeat_interleave(TOKENS, dim=1)
        everything = torch.ones_like(positions)  # without a mask, repeated positions would count as packed sequences
        hidden = self.blocks(inputs_embeds=sequence, position_ids=positions, attention_mask=everything)
        at_returns = hidden.last_hidden_state.view(n, t, TOKENS, -1)[:, :, 1]
        return torch.tanh(self.action_head(at_returns))


def load(
    model: ModelSettings,
    data: DataSettings,
    device: torch.device | str = "cpu",
    outputs: int | None = None,
    seed: int = 0,
) -> ModelBundle:
    """Load config.json and model.safetensors from a local folder; see `eva_bench.models.load`.

    Raises:
        UserError: broken checkpoint, or target layers that match nothing.
    """
    folder = model_folder(model)
    module = DecisionTransformer(_config(folder))
    try:
        module.load_state_dict(load_file(folder / "model.safetensors"))
    except Exception as error:
        raise checkpoint.refusal(folder, error) from error
    checkpoint.refuse_infinite(folder, module)
    module.to(device, getattr(torch, model.dtype)).eval()
    return _bundle(module, model, checkpoint.facts(module, model))


def skeleton(model: ModelSettings, data: DataSettings, outputs: int | None = None) -> ModelBundle:
    """The model without weights; see `eva_bench.models.skeleton`."""
    with torch.device("meta"):
        return _bundle(DecisionTransformer(_config(model_folder(model))), model, {})


def save(bundle: ModelBundle, folder: Path) -> None:
    """Configuration and weights, as `load` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(asdict(bundle.module.config), indent=2) + "\n")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in bundle.module.state_dict().items()}
    save_file(state, folder / "model.safetensors")


def row_mask(batch: dict[str, Tensor]) -> list[Tensor]:
    """Rows that count: of the blocks' inputs one per token, of the action head's one per step."""
    return [batch["mask"].repeat_interleave(TOKENS, dim=1), batch["mask"]]


def _config(folder: Path) -> DecisionConfig:
    try:
        return DecisionConfig(**json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"The checkpoint '{folder.name}' is no decision transformer: {error}") from error


def _bundle(module: DecisionTransformer, model: ModelSettings, origin: dict[str, Any]) -> ModelBundle:
    targets = find_targets(module, model.targets)
    return ModelBundle(module, None, targets, "decision", row_mask=row_mask, origin=origin)
