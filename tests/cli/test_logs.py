"""Log lines: the commands show them, the library does not."""

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tqdm import tqdm

from bert_jax.cli import logs

logger = logging.getLogger("bert_jax.test")


@pytest.fixture
def _configured() -> Iterator[None]:
    logs.configure()
    yield
    logs.configure()


def test_the_library_is_silent_until_logging_is_configured() -> None:
    code = "import logging, bert_jax; logging.getLogger('bert_jax.x').error('lost')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.usefixtures("_configured")
def test_a_warning_says_that_it_is_one_and_no_line_comes_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logging.getLogger().addHandler(logging.StreamHandler())  # as the import of a library may
    logs.configure()
    logger.info("step %d", 3)
    logger.warning("a spike")
    logger.debug("details")
    assert capsys.readouterr().err == "step 3\nwarning: a spike\n"


@pytest.mark.usefixtures("_configured")
def test_processes_after_the_first_show_errors_only(capsys: pytest.CaptureFixture[str]) -> None:
    logs.show_errors_only()
    logger.info("step 3")
    logger.warning("a spike")
    logger.error("the lock is lost")
    assert capsys.readouterr().err == "error: the lock is lost\n"


@pytest.mark.usefixtures("_configured")
def test_a_line_beside_a_progress_bar_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with tqdm(total=9, file=sys.stderr, mininterval=0):
        capsys.readouterr()
        logger.info("step 3")
    err = capsys.readouterr().err
    assert "step 3\n" in err.split("\r")
