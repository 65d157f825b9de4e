"""lm-eval with the model in memory: task YAMLs of ours, every sample kept, never the harness's response cache."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import yaml

from eva_bench.models.bundle import ModelBundle
from eva_bench.models.sharding import inference
from eva_bench.system.paths import HARNESS
from eva_bench.task import Evaluation
from tasks.samples import answer_rows

FOLDER = HARNESS
ENCODED = 8192  # texts whose tokens are kept: those of a chunk


def read_task(name: str) -> dict:
    """The task YAML `tasks/lm_eval/<name>.yaml`."""
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def generate(name: str, bundle: ModelBundle, docs: Sequence[dict], evaluation: Evaluation) -> list[dict]:
    """Answer `docs` (prompt, target, and whatever else their samples shall keep) by greedy generation.

    Args:
        name: of a task YAML in tasks/lm_eval/.
        bundle: model and tokenizer.
        docs: what is asked.
        evaluation: batch size, length of answers, chunk; where samples are kept and progress goes.

    Returns:
        One sample per doc, in order: row, prompt, prompt_sha256, target, response, and one text per filter.
    """
    lm, config = None, read_task(name)
    config["generation_kwargs"] = {**config["generation_kwargs"], "max_gen_toks": evaluation.settings.max_new_tokens}

    def answer(chunk: Sequence[dict], first: int, answered: Callable) -> list[dict]:
        nonlocal lm
        lm = lm or _language_model(bundle, evaluation.settings.batch_size)
        lm.show = lambda share: answered(int(share * len(chunk)))
        logged = _run_chunk(lm, {name: (config, chunk)})[name]
        samples = [_sample(doc, first + i) for i, doc in enumerate(chunk)]
        for entry in logged:  # one per document and filter
            sample = samples[entry["doc_id"]]
            sample["response"] = entry["resps"][0][0]
            sample[entry["filter"]] = entry["filtered_resps"][0]
        return samples

    return answer_rows(docs, evaluation.samples_file, evaluation.settings.chunk, answer, evaluation.progress)


def choose(bundle: ModelBundle, docs: Sequence[dict], evaluation: Evaluation) -> list[dict]:
    """Answer `docs` by the log-likelihood of their labels behind their prompts; the labels' lengths do not count.

    A prompt that does not fit into the model's context, with its longest label, loses its beginning.

    Args:
        bundle: model and tokenizer.
        docs: harness (name of a task YAML), prompt, labels, target (one of the labels).
        evaluation: batch size, chunk; where samples are kept and progress goes.

    Returns:
        One sample per doc, in order: row, harness, prompt, prompt_sha256, labels, target, response (the likeliest
        label), loglikelihoods, truncated (whether the prompt was cut).
    """
    lm = None

    def answer(chunk: Sequence[dict], first: int, answered: Callable) -> list[dict]:
        nonlocal lm
        lm = lm or _language_model(bundle, evaluation.settings.batch_size)
        lm.show = lambda share: answered(int(share * len(chunk)))
        samples = [_sample(doc, first + i) for i, doc in enumerate(chunk)]
        groups: dict[str, list[dict]] = {}
        for sample in samples:
            groups.setdefault(sample["harness"], []).append(sample)
        asked = ("prompt", "labels", "target")
        tasks = {
            name: (read_task(name), [{key: s[key] for key in asked} for s in group]) for name, group in groups.items()
        }
        for name, logged in _run_chunk(lm, tasks).items():
            for entry in logged:
                _choose_label(groups[name][entry["doc_id"]], entry["filtered_resps"], lm)
        return samples

    return answer_rows(docs, evaluation.samples_file, evaluation.settings.chunk, answer, evaluation.progress)


def _choose_label(sample: dict, answers: Sequence[tuple[float, bool]], lm) -> None:
    """Put the likelihoods of the labels and the likeliest one into a sample, and whether its prompt was too long."""
    likelihoods = [likelihood for likelihood, _ in answers]
    sample["response"] = sample["labels"][likelihoods.index(max(likelihoods))]
    sample["loglikelihoods"] = [round(likelihood, 5) for likelihood in likelihoods]
    tokens = max(len(lm.tok_encode(f"{sample['prompt']} {label}")) for label in sample["labels"])
    sample["truncated"] = tokens - 1 > lm.max_length  # the last token is predicted, never read


def _sample(doc: dict, row: int) -> dict[str, Any]:
    return {"row": row, **doc, "prompt_sha256": hashlib.sha256(doc["prompt"].encode()).hexdigest()}


def _language_model(bundle: ModelBundle, batch_size: int):
    from lm_eval.models.huggingface import HFLM  # noqa: PLC0415 - it takes seconds and a refused run does without

    class Quiet(HFLM):
        """The harness's model without its own progress bars, which would tear ours apart; `show` gets what is done."""

        def generate_until(self, requests, disable_tqdm=True):
            self.done, self.expected = 0, len(requests)
            return super().generate_until(requests, disable_tqdm=True)

        def loglikelihood(self, requests, disable_tqdm=True):
            return super().loglikelihood(requests, disable_tqdm=True)

        def _loglikelihood_tokens(self, requests, disable_tqdm=True, override_bs=None):
            inputs = {(*context, *label[:-1]) for _, context, label in requests}  # equal ones are computed once
            self.done, self.expected = 0, len(inputs)
            return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

        def _model_generate(self, context, *args, **kwargs):
            return self._counted(super()._model_generate(context, *args, **kwargs), len(context))

        def _model_call(self, inps, *args, **kwargs):
            return self._counted(super()._model_call(inps, *args, **kwargs), len(inps))

        def _counted(self, result, rows):
            self.done = min(self.done + rows, self.expected)
            self.show(self.done / self.expected)
            return result

    for library in ("lm-eval", "lm_eval", "transformers"):
        logging.getLogger(library).setLevel(logging.ERROR)
    _compile_templates_once()
    lm = Quiet(pretrained=bundle.module, tokenizer=bundle.processor, batch_size=batch_size, truncation=True)
    lm.tok_encode = lru_cache(maxsize=ENCODED)(lm.tok_encode)  # the harness encodes a prompt again with every label
    return lm


@cache
def _compile_templates_once() -> None:
    """The harness compiles the templates of a task YAML again for every row: a third of the time of a choice."""
    from lm_eval.utils import env  # noqa: PLC0415 - as above

    env.from_string = cache(env.from_string)


def _run_chunk(lm, tasks: dict[str, tuple[dict, Sequence[dict]]]) -> dict[str, list[dict]]:
    """What the harness logs per task name for (task configuration, docs)."""
    from datasets import Dataset  # noqa: PLC0415 - as above
    from lm_eval.api.task import ConfigurableTask  # noqa: PLC0415 - it takes seconds, and a refused run does without
    from lm_eval.evaluator import evaluate  # noqa: PLC0415 - it takes seconds, and a refused run does without

    def configured(config: dict, docs: Sequence[dict]) -> ConfigurableTask:
        return ConfigurableTask(config=config | {"custom_dataset": lambda **_: {"test": Dataset.from_list(list(docs))}})

    with inference(lm.model):
        results = evaluate(
            lm, {name: configured(*task) for name, task in tasks.items()}, bootstrap_iters=0, log_samples=True
        )
    return results["samples"]
