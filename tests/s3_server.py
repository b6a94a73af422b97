"""An S3 server on loopback, which lives in this process: moto's, on a free port."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}


class S3Server:
    """Where it listens, and what it is to do wrong."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.port = 0
        self.lose_next_answer = False

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which clients find it."""
        return CREDENTIALS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request (WSGI); the answer that is to be lost is replaced once the work is done."""
        if not self.lose_next_answer or environ["REQUEST_METHOD"] != "PUT":
            answer: Iterable[bytes] = self._app(environ, start_response)
            return answer
        self.lose_next_answer = False
        list(self._app(environ, lambda *_: None))
        start_response("500 Internal Server Error", [("Content-Length", "0")])
        return []


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A running server.

    It answers one request after the other: moto looks for the key and stores it in two steps, so that only then its
    conditional put is as whole as the real one.
    """
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = S3Server(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=False)
    app.port = server.port
    thread = threading.Thread(target=server.serve_forever, name="s3-server", daemon=True)
    thread.start()
    try:
        yield app
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def new_bucket(name: str) -> str:
    """Make a bucket on the server that the environment names; its URL."""
    import boto3

    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"
