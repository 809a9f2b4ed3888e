"""The command `demo`: the other commands in a row, on the text that is shipped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from bert_jax.cli import evaluate_command, run_commands, text_commands
from bert_jax.cli.command import Command, optional
from bert_jax.utils.shipped import shipped_file

DATA, RUN = Path("runs/demo-data"), "runs/demo"


@dataclass(frozen=True)
class Demo(Command):
    """Train a small BERT on the sample text, in under ten minutes on two CPU cores.

    It writes runs/demo-data and runs/demo here, and shows what the model learned. It is safe to
    repeat: existing folders are kept, and a stopped run resumes.

    Example: bert-jax demo --steps 300
    """

    # Number of training steps; the default is that of configs/demo.py.
    steps: Annotated[int | None, optional("N")] = None

    def run(self, extra: list[str]) -> int:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"--steps is {self.steps}: expected at least 1")
        prepare_demo()
        _say(
            "3/5 pre-training (configs/demo.py): BERT's objective, with rotary positions, pre-norm,"
            " a gated MLP, Muon and a trapezoidal schedule, which came later"
        )
        fields = ["--data.path", str(DATA / "corpus"), "--run.dir", RUN]
        if self.steps is not None:
            fields += ["--run.steps", str(self.steps)]
        config = str(shipped_file("configs/demo.py"))
        try:
            status = run_commands.Pretrain(config=config).run(fields)
        except ValueError as e:
            raise ValueError(_advice(str(e), config, self.steps)) from None
        if status:  # stopped by a signal
            return status
        _say(
            "4/5 what it learned: masked tokens of held-out text, beside baselines without context"
            " and with two neighbors"
        )
        evaluate_command.Evaluate(model=RUN, data=str(DATA / "corpus")).run([])
        _say(
            "5/5 eight sentences; + marks an accepted word (data/demo_prompts.jsonl) in the top"
            " three, of the model and of counts of the two neighbors"
        )
        from bert_jax.inference.demo_prompts import fill_demo_prompts

        print(fill_demo_prompts(RUN, str(DATA / "corpus")))
        _say("loss curves")
        run_commands.Report(run_dirs=(RUN,), out=f"{RUN}/report").run([])
        print(f"the run folder: {RUN}")
        return 0


def prepare_demo() -> None:
    """Make the tokenizer and the corpus of the demo, unless they are there."""
    text = (str(shipped_file("data/sample.txt")),)
    tokenizer = DATA / "tokenizer"
    if not tokenizer.is_dir():
        _say("1/5 a tokenizer, from the text of data/sample.txt")
        text_commands.Tokenizer(
            text=text, kind="wordpiece", vocab_size=4000, out=str(tokenizer)
        ).run([])
    if not (DATA / "corpus").is_dir():
        _say("2/5 the text as rows of token ids; every 20th document is kept for validation")
        text_commands.Prepare(
            text=text,
            tokenizer=str(tokenizer),
            segments="nsp",
            length=64,
            out=str(DATA / "corpus"),
            workers=2,
        ).run([])


def _advice(message: str, config: str, steps: int | None) -> str:
    """What `pretrain` refuses, with advice that has no flags of `pretrain`."""
    from bert_jax.config import from_python_file, read_config

    saved = Path(RUN) / "config.json"
    if "run.steps" in message and saved.is_file():
        before, now = read_config(saved).run.steps, steps or from_python_file(config).run.steps
        message = f"{RUN} was made with {before} steps, now {now}: give --steps {before} to keep it"
    elif "--run.dir" not in message:
        return message
    return f"{message}; to begin again, remove {RUN}"


def _say(title: str) -> None:
    print(f"\n== {title}", flush=True)
