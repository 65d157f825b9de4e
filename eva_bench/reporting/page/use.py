"""Code to take away: a method in stock PEFT with the benchmark's configuration and the rate in use. No torch here."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

from eva_bench.reporting.archive import Run


@cache
def _in_peft() -> dict[str, dict[str, str]]:
    return yaml.safe_load(Path(__file__).with_name("peft.yaml").read_text(encoding="utf-8"))


def peft_code(run: Run) -> str:
    """Python with the adapter's configuration and the optimiser of a run; comments where PEFT has no such method."""
    train, method = run.spec.train, run.method
    length = f"{train.steps} steps" if train.steps else f"{train.epochs:g} epochs"
    what = f"{run.family}, {run.model_name}, scale {run.scale}: {length}, batches of {train.batch_size}"
    optimiser = (
        f"optimizer = torch.optim.AdamW(parameters, lr={run.lr:g}, weight_decay={train.weight_decay:g})"
        f"  # {train.schedule}, warm-up {train.warmup_ratio:g}"
    )
    lines = [f"# {method}, {what}"]
    if not run.ranks:
        return "\n".join([*lines, "parameters = model.parameters()", optimiser])
    trained = "parameters = [p for p in model.parameters() if p.requires_grad]"
    if method not in _in_peft():
        lines += [
            "# PEFT cannot initialise this one; the adapter of a run is a stock one:",
            "from peft import PeftModel",
        ]
        lines.append('model = PeftModel.from_pretrained(model, "runs/<run_id>/adapter", is_trainable=True)')
        return "\n".join([*lines, trained, optimiser])
    known = {key: text.format(rho=run.setting("method.rho")) for key, text in _in_peft()[method].items()}
    targets = ", ".join(f'"{name}"' for name in run.spec.model.targets)
    extra = f", {known['config']}" if known["config"] else ""
    lines += ["from peft import LoraConfig, get_peft_model", *filter(None, [known["before"]])]
    lines.append(f"config = LoraConfig(r={run.spec.adapter.rank}, lora_alpha={run.spec.adapter.alpha:g}{extra},")
    lines.append(f"                    target_modules=[{targets}])")
    lines += ["model = get_peft_model(model, config)", *filter(None, [known["after"]]), trained, optimiser]
    return "\n".join(lines)
