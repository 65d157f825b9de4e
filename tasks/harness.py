"""lm-eval with the model in memory: task YAMLs of ours, every sample kept, never the harness's response cache."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import yaml

from eva_bench.models.bundle import ModelBundle

FOLDER = Path(__file__).with_name("lm_eval")


def read_task(name: str) -> dict:
    """The task YAML `tasks/lm_eval/<name>.yaml`."""
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def generate(
    name: str, bundle: ModelBundle, docs: Sequence[dict], evaluation: dict, samples_file: Path, progress: Callable
) -> list[dict]:
    """Answer `docs` (prompt, target) by greedy generation.

    Args:
        evaluation: batch_size, max_new_tokens, chunk.
        samples_file: JSON lines; rows that it holds already are not answered again.
        progress: called with (done, total) after each chunk.

    Returns:
        One sample per doc, in order: row, prompt_sha256, target, response, and one text per filter.
    """
    samples = _complete_lines(samples_file, len(docs), evaluation["chunk"])
    lm = None
    while len(samples) < len(docs):
        lm = lm or _language_model(bundle, evaluation["batch_size"])
        start = len(samples)
        chunk = docs[start : start + evaluation["chunk"]]
        new = _run_chunk(lm, name, chunk, evaluation["max_new_tokens"], start)
        with samples_file.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in new)
        samples += new
        progress(len(samples), len(docs))
    return samples


def _complete_lines(samples_file: Path, n_docs: int, chunk: int) -> list[dict]:
    """Samples of an interrupted evaluation, in whole chunks, so that the rest falls into the same batches as ever."""
    if not samples_file.exists():
        return []
    content = samples_file.read_bytes()
    samples = []
    for line in content.split(b"\n")[:-1]:  # bytes: a file may end within a character
        try:
            samples.append(json.loads(line))
        except ValueError:
            break
    samples = samples[:n_docs]
    if len(samples) < n_docs:
        samples = samples[: len(samples) // chunk * chunk]
    kept = b"".join(line + b"\n" for line in content.split(b"\n")[: len(samples)])
    if kept != content:
        temporary = samples_file.with_name(f"{samples_file.name}.{os.getpid()}.tmp")
        temporary.write_bytes(kept)
        temporary.replace(samples_file)
    return samples


def _language_model(bundle: ModelBundle, batch_size: int):
    from lm_eval.models.huggingface import HFLM

    class Quiet(HFLM):
        """The harness's model without its own progress bars: ours would be torn apart by them."""

        def generate_until(self, requests, disable_tqdm=True):
            return super().generate_until(requests, disable_tqdm=True)

        def loglikelihood(self, requests, disable_tqdm=True):
            return super().loglikelihood(requests, disable_tqdm=True)

    for library in ("lm-eval", "lm_eval", "transformers"):
        logging.getLogger(library).setLevel(logging.ERROR)
    return Quiet(pretrained=bundle.module, tokenizer=bundle.processor, batch_size=batch_size, truncation=True)


def _run_chunk(lm, name: str, docs: Sequence[dict], max_new_tokens: int, first_row: int) -> list[dict]:
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate

    config = read_task(name)
    config["generation_kwargs"] = {**config["generation_kwargs"], "max_gen_toks": max_new_tokens}
    config["custom_dataset"] = lambda **_: {"test": Dataset.from_list(list(docs))}
    with torch.inference_mode():
        results = evaluate(lm, {name: ConfigurableTask(config=config)}, bootstrap_iters=0, log_samples=True)
    samples: dict[int, dict] = {}
    for logged in results["samples"][name]:  # one per document and filter
        index = logged["doc_id"]
        sample = samples.setdefault(
            index,
            {
                "row": first_row + index,
                "prompt": docs[index]["prompt"],
                "prompt_sha256": hashlib.sha256(docs[index]["prompt"].encode()).hexdigest(),
                "target": docs[index]["target"],
                "response": logged["resps"][0][0],
            },
        )
        sample[logged["filter"]] = logged["filtered_resps"][0]
    return [samples[index] for index in range(len(docs))]
