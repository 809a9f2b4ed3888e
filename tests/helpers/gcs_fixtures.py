"""Fixtures of a fake bucket: gcsfs and TensorStore talk to a server in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.helpers.fake_gcs import Bucket

os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # asks by gRPC; read on import


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[Bucket]:
    """`gs://bucket` in memory; one server, because clients keep its address. Skips the test if
    gcsfs is not installed."""
    pytest.importorskip("gcsfs", reason="pip install gcsfs")
    import fsspec.config

    from tests.helpers import fake_gcs

    bucket = fake_gcs.Bucket()
    with pytest.MonkeyPatch.context() as patch, fake_gcs.served(bucket) as environment:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
        yield bucket


@pytest.fixture
def gs(gcs_server: Bucket) -> Iterator[Bucket]:
    """The bucket, empty and without faults."""
    from bert_jax.utils import remote

    gcs_server.objects.clear()
    gcs_server.downloads.clear()
    gcs_server.refuses = gcs_server.hangs = gcs_server.read_only = False
    yield gcs_server
    remote.clear_cache()
