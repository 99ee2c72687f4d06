"""The names of `weft.train`, and where each is defined.

At run time `__init__.py` imports each when it is first used.
"""

from weft.train import metrics as metrics
from weft.train import optimizer as optimizer
from weft.train.checkpoints import Checkpoints as Checkpoints
from weft.train.history import History as History
from weft.train.history import is_stale as is_stale
from weft.train.learner import Learner as Learner
from weft.train.loader import Loader as Loader
from weft.train.lock import FolderInUseError as FolderInUseError
from weft.train.loss_scale import LossScale as LossScale
from weft.train.nan_guard import NaNError as NaNError
from weft.train.nan_guard import nonfinite_paths as nonfinite_paths
from weft.train.progress import Bar as Bar
from weft.train.progress import bar as bar
from weft.train.run import Run as Run
from weft.train.scan_steps import scanned as scanned
from weft.train.signals import StopSignals as StopSignals
from weft.train.sinks import CSV as CSV
from weft.train.sinks import Plot as Plot
from weft.train.sinks import TensorBoard as TensorBoard
from weft.train.values import mean as mean
