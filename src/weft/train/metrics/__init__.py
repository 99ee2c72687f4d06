"""Metrics: figures gathered over the batches of an epoch.

A *metric* keeps sums in Variables of type `MetricState`; `update` adds a batch to them, `compute`
turns them into the figure, `reset` zeroes them. A *mask* tells which elements of a batch count. A
`MultiMetric` hands each of its metrics those keyword arguments that it takes.
"""

from weft._module import Pytree as Pytree
from weft._variable.variable import Variable as Variable
from weft.train.metrics.accuracy import Accuracy as Accuracy
from weft.train.metrics.accuracy import TopKAccuracy as TopKAccuracy
from weft.train.metrics.averages import Average as Average
from weft.train.metrics.averages import Statistics as Statistics
from weft.train.metrics.averages import Welford as Welford
from weft.train.metrics.confusion import ConfusionMatrix as ConfusionMatrix
from weft.train.metrics.confusion import F1Score as F1Score
from weft.train.metrics.confusion import Precision as Precision
from weft.train.metrics.confusion import Recall as Recall
from weft.train.metrics.metric import Metric as Metric
from weft.train.metrics.metric import MetricState as MetricState
from weft.train.metrics.metric import MultiMetric as MultiMetric
