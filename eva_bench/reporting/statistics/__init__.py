"""Statistics of benchmark scores. The unit of replication is the training. Never imports torch."""

from eva_bench.reporting.statistics.agreement import Agreement, rank_agreement
from eva_bench.reporting.statistics.bootstrap import bootstrap_interval
from eva_bench.reporting.statistics.compare import MARGIN, Difference, Model
from eva_bench.reporting.statistics.per_task import TaskDifference, differences_to
from eva_bench.reporting.statistics.ranks import block_means, critical_difference, mean_ranks, wins
from eva_bench.reporting.statistics.rates import Curve
from eva_bench.reporting.statistics.reliability import ENOUGH, NEAR, Judgement, judge, reliability
from eva_bench.reporting.statistics.scores import LOGIT, PLAIN, Score, balanced_means

__all__ = [
    "ENOUGH",
    "LOGIT",
    "MARGIN",
    "NEAR",
    "PLAIN",
    "Agreement",
    "Curve",
    "Difference",
    "Judgement",
    "Model",
    "Score",
    "TaskDifference",
    "balanced_means",
    "block_means",
    "bootstrap_interval",
    "critical_difference",
    "differences_to",
    "judge",
    "mean_ranks",
    "rank_agreement",
    "reliability",
    "wins",
]
