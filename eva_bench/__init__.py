"""eva-bench: how should LoRA be initialised?"""

import importlib
import sys
from pathlib import Path

from eva_bench.system.errors import UserError, did_you_mean
from eva_bench.system.paths import POCKET_WEIGHTS

__version__ = "0.1.0"


def pocket_model(name: str) -> Path:
    """The folder of a pocket base model, wherever this package lies.

    Args:
        name: language, exam, encoder, vision or decision.

    Returns:
        A checkpoint's folder; `language`, `exam` and `encoder` load with Transformers.

    Raises:
        UserError: there is no such model.
    """
    known = sorted(path.parent.name for path in POCKET_WEIGHTS.glob("*/config.json"))
    if name not in known:
        raise UserError(f"There is no pocket model '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}.")
    return POCKET_WEIGHTS / name


def main() -> int:
    """The command `eva-bench`; one sentence where only EVA for PEFT models is installed.

    Returns:
        The exit code.
    """
    try:
        cli = importlib.import_module("eva_bench.cli")
    except ModuleNotFoundError as error:
        missing = f"The suite needs {error.name}, which is not installed: pip install 'eva-bench[suite]'."
        print(f"error: {missing}", file=sys.stderr)
        return 2
    return cli.main()
