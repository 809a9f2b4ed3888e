"""Guards that keep a run from losing work and from learning from bad numbers.

preemption   SIGTERM and SIGINT: finish the step, save, exit; all processes at the same step
nonfinite    losses and gradients that are not finite, and spikes: skip the update
watchdog     a phase that hangs: write the stacks of all threads
"""

from bert_jax.training.guard.nonfinite import (
    LossHistory,
    SkipMonitor,
    check_update,
    first_nonfinite,
    gradient_norms,
    init,
)
from bert_jax.training.guard.preemption import PreemptionHandler
from bert_jax.training.guard.watchdog import Watchdog

__all__ = [
    "LossHistory",
    "PreemptionHandler",
    "SkipMonitor",
    "Watchdog",
    "check_update",
    "first_nonfinite",
    "gradient_norms",
    "init",
]
