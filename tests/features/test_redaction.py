"""No secret survives in what is written or said, and what is no secret does."""

from __future__ import annotations

import logging
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import ConfError, DataError, Problem
from features.redaction import RedactedFormatter, has_secret, redacted

SECRETS = [
    ("s3://AKIA1:c0nf/ident+ial@bucket/a", "s3://bucket/a"),
    ("s3a://AKIA1:confidential@bucket/a@b", "s3a://bucket/a@b"),
    ("https://ann:p@ss@host:5000/x", "https://host:5000/x"),
    ("https://a-token@host/x", "https://host/x"),
    ("postgresql://ann:pw@db:5432/mlflow", "postgresql://db:5432/mlflow"),
    ("https://host/x?token=abc&n=1", "https://host/x?token=***&n=1"),
    (
        "https://h/x?X-Amz-Credential=a%2Fb&X-Amz-Signature=ff#y",
        "https://h/x?X-Amz-Credential=***&X-Amz-Signature=***#y",
    ),
    ("wasbs://c@a.blob.core.windows.net/x?sv=1&sig=ff", "wasbs://c@a.blob.core.windows.net/x?sv=1&sig=***"),
    ("https://host/#access_token=ff", "https://host/#access_token=***"),
]
PLAIN = [
    "/data/a@b", "s3://bucket/a@b", "hdfs://user@nn:8020/x", "hdfs://nn:8020/x@y:z", "abfss://container@account/x",
    "s3://bucket/x?region=eu-west-1&endpoint_override=localhost:9000", "sqlite:////tmp/mlflow.db",
    "https://host:5000/x?design=2&n=1", "https://host/@ann", "no URL: a@b c:d",
]  # fmt: skip


@pytest.mark.parametrize(("url", "left"), SECRETS)
def test_secrets_go_and_the_rest_stays(url: str, left: str) -> None:
    assert redacted(url) == left
    assert has_secret(url)
    assert redacted(left) == left, "once is enough"
    assert redacted(f"cannot read '{url}', {url}") == f"cannot read '{left}', {left}"


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text
    assert not has_secret(text)


@given(
    st.sampled_from(["s3", "s3a", "https", "http", "postgresql+psycopg2", "ftp"]),
    st.text(min_size=1, max_size=12),
    st.text(alphabet=st.characters(min_codepoint=33), min_size=1, max_size=20),
)
def test_no_password_survives_however_it_is_spelled(scheme: str, user: str, password: str) -> None:
    marked = f"{password}SECRETMARK{password}"
    url = f"{scheme}://{quote(user, safe='')}:{quote(marked, safe='')}@host/path"
    assert redacted(f"x {url} y") == f"x {scheme}://host/path y"


def test_errors_and_log_lines_have_none() -> None:
    url = "s3://AKIA1:confidential@bucket/a"
    problem = Problem(what=f"cannot read {url}", examples=[url], remedy=f"Look at {url}")
    for error in (DataError([problem]), ConfError(f"no {url}")):
        assert "confidential" not in str(error) + repr(error)
        assert "s3://bucket/a" in str(error)
    record = logging.makeLogRecord({"msg": "reading %s", "args": (url,)})
    assert RedactedFormatter("%(message)s").format(record) == "reading s3://bucket/a"
