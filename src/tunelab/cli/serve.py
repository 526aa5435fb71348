"""`tunelab serve` and `tunelab load-test`: classifiers behind HTTP, and how fast they answer.

Only click is imported here; a verb imports what it needs.
"""

from __future__ import annotations

from typing import Any

import click

from tunelab.cli.options import FOLDER, json_option, moved_option, print_json, trust_option
from tunelab.cli.streams import echo
from tunelab.core.errors import InputError

__all__ = [
    "load_test_command",
    "serve_command",
]

_key_option = click.option(
    "--api-key-file",
    type=FOLDER,
    help="Keys, one a line; also from TUNELAB_API_KEYS, between commas.",
)


@click.command("serve", short_help="Serve trained classifiers over HTTP.")
@click.argument("models", nargs=-1, metavar="[[NAME=]FOLDER]...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@_key_option
@click.option(
    "--adapter-dir",
    type=FOLDER,
    help="Classifiers in this folder may be loaded, and all unloaded, while the server runs.",
)
@click.option(
    "--flag", multiple=True, metavar="LABEL", help="Label that /v1/moderations flags (several)."
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="What layers compute in, as for predict.",
)
@click.option("--max-batch-tokens", type=click.IntRange(1), default=16_384, show_default=True)
@click.option(
    "--max-queued-tokens",
    type=click.IntRange(1),
    default=262_144,
    show_default=True,
    help="More that wait are refused: 429.",
)
@click.option(
    "--max-client-batch-size",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Texts in one request.",
)
@click.option("--payload-limit", type=click.IntRange(1), default=2_000_000, show_default=True,
              help="Bytes of a request.")  # fmt: skip
@click.option("--log-texts", is_flag=True, help="Print each text with its label.")
@moved_option
@trust_option
def serve_command(models: tuple[str, ...], **given: Any) -> None:
    """Serve trained classifiers over HTTP: folders from `train`, trials, studies (their best).

    Clients of text-embeddings-inference, the Hugging Face hub, vLLM, OpenAI, KServe and SageMaker
    are answered unchanged. The first model answers those who name none.
    """
    if not models and given["adapter_dir"] is None:
        raise InputError(
            "Nothing to serve: give folders of classifiers. For example: tunelab serve out"
        )
    from tunelab import api, servers

    servers.refuse_without_extra()
    from tunelab.serving.keys import read_keys
    from tunelab.serving.listening import ServerSettings, run_server
    from tunelab.serving.loading import named_folders, read_names
    from tunelab.serving.refusal import Limits

    settings = ServerSettings(
        host=given["host"],
        port=given["port"],
        keys=read_keys(given["api_key_file"]),
        adapter_dir=given["adapter_dir"],
        flag=given["flag"],
        log_texts=given["log_texts"],
        precision=given["precision"],
        base_at=given["model"],
        trust_remote_code=bool(given["trust_remote_code"]),
        limits=Limits(
            body=given["payload_limit"],
            texts=given["max_client_batch_size"],
            batch_tokens=given["max_batch_tokens"],
            queued_tokens=given["max_queued_tokens"],
        ),
    )
    run_server(lambda: named_folders(read_names(models), api.classifier_folder), settings, echo)


@click.command("load-test", short_help="How fast a server answers, by number of clients.")
@click.argument("url")
@click.option(
    "--clients", default="1,8,64", show_default=True, metavar="N,N,...", help="At a time."
)
@click.option("--seconds", type=click.FloatRange(0.1), default=5.0, show_default=True)
@click.option("--model", multiple=True, metavar="NAME", help="Ask these (else all, in turn).")
@_key_option
@json_option
def load_test_command(url: str, clients: str, **given: Any) -> None:
    """Ask a running server as fast as it answers: texts a second, and seconds until an answer.

    Every client waits for its answer before it asks again; a request has one text.
    """
    numbers = [n.strip() for n in clients.split(",")]
    if not all(n.isascii() and n.isdigit() and 0 < int(n) <= 4096 for n in numbers):
        raise InputError(f"--clients {clients}: expected numbers from 1 to 4096, such as 1,8,64.")
    from dataclasses import asdict

    from tunelab.cli.terminal import print_table
    from tunelab.serving.keys import read_keys
    from tunelab.serving.load_test import load_test, server_models

    key = next(iter(read_keys(given["api_key_file"])), None)
    known = server_models(url, key)
    asked = list(given["model"]) or known
    strange = next((name for name in asked if name not in known), None)
    if strange is not None:
        raise InputError(f"--model {strange}: expected one of {', '.join(known)}.")
    figures = [load_test(url, int(n), given["seconds"], asked, key=key) for n in numbers]
    if given["as_json"]:
        print_json([asdict(f) for f in figures])
        return
    head = ["clients", "texts/s", "p50 ms", "p95 ms", "p99 ms", "answers", "refused", "failed"]
    rows = [
        [
            str(f.clients),
            f"{f.texts_per_second:,.0f}",
            *("-" if s is None else f"{1000 * s:.1f}" for s in (f.p50, f.p95, f.p99)),
            f"{f.answers:,}",
            str(f.refused),
            str(f.failed),
        ]
        for f in figures
    ]
    print_table(head, rows)
