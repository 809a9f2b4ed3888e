"""What keeps a run from losing work or learning from bad numbers.

signals    SIGTERM and SIGINT: finish the step, save, leave; all processes at the same step
numbers    losses and gradients that are not finite, and spikes: the update is left out
watchdog   a phase that takes far too long tells where it hangs
"""

from bert_jax.guard.numbers import History, Tally, begin, first_bad, judge, measure
from bert_jax.guard.signals import Stop
from bert_jax.guard.watchdog import Watchdog

__all__ = [
    "History",
    "Stop",
    "Tally",
    "Watchdog",
    "begin",
    "first_bad",
    "judge",
    "measure",
]
