"""Which process of a distributed job this is, from the environment that `accelerate launch` and torchrun set."""

import os


def is_main_process() -> bool:
    """False in the second and later processes of a job."""
    return int(os.environ.get("RANK", "0")) == 0


def distributed() -> bool:
    """Whether this job has several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
