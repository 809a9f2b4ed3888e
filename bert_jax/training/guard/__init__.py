"""What keeps a run from losing work or learning from bad numbers.

signals    SIGTERM and SIGINT: finish the step, save, leave; all processes at the same step
numbers    losses and gradients that are not finite, and spikes: the update is left out
watchdog   a phase that takes far too long tells where it hangs
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
