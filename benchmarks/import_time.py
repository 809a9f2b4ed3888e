"""Measure how long `import bert_jax` and `bert-jax --help` take, beside `python -c pass`.

    python benchmarks/import_time.py [--repeat 20]

Prints the median seconds of each, and its multiple of `python -c pass`. They alternate, so that
other work on the machine slows all of them.
"""

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import bert_jax": ["-c", "import bert_jax"],
    "bert-jax --help": ["-m", "bert_jax", "--help"],
    "bert-jax fill --help": ["-m", "bert_jax", "fill", "--help"],
    "import jax": ["-c", "import jax"],
}


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=20)
    repeat = parser.parse_args().repeat
    rounds = [{name: seconds(args) for name, args in COMMANDS.items()} for _ in range(repeat + 1)]
    medians = {name: statistics.median(r[name] for r in rounds[1:]) for name in COMMANDS}
    for name, median in medians.items():
        print(f"{name:22} {median:.3f} s  {median / medians['python -c pass']:5.1f} times")


if __name__ == "__main__":
    main()
