"""``decode``: what a token says, and what a server would say to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from asgi_token_auth.authentication import Authenticated, Credential, Outcome, Reason, Rejected
from asgi_token_auth.bearer import is_token
from asgi_token_auth.cli.inputs import read_optional_secret, read_token_from_stdin
from asgi_token_auth.cli.options import check_for_password, json_option, prefix_option, secret_options, token_prefix
from asgi_token_auth.cli.output import format_fields, print_json, print_to_stderr
from asgi_token_auth.cli.parsing import Command
from asgi_token_auth.cli.records import token_fields
from asgi_token_auth.cli.stores import open_token_store
from asgi_token_auth.config.values import is_array, is_object
from asgi_token_auth.decoding import token_of
from asgi_token_auth.errors import InvalidInput, TokenNotFound
from asgi_token_auth.restrictions import Restrictions
from asgi_token_auth.signing import SIGNED_PREFIX, SigningSecrets, datasette_signer, read_payload
from asgi_token_auth.sources.managed import ManagedTokens
from asgi_token_auth.sources.signed import SignedTokens
from asgi_token_auth.tokens.as_json import record_json
from asgi_token_auth.tokens.record import ANY_OWNER, TokenRecord
from asgi_token_auth.tokens.text import ManagedTokenText
from asgi_token_auth.wording import describe, exact, relative


@dataclass(slots=True)
class _Finding:
    """What is known of a token. ``None``: it is not known."""

    kind: str
    payload: Any = None
    token_id: int | None = None
    signature: bool | None = None
    accepted: bool | None = None
    reason: str | None = None
    row: TokenRecord | None = None
    lines: Sequence[tuple[str, str]] = ()


@click.command(cls=Command)
@click.argument("token", required=False)
@secret_options
@prefix_option
@click.option(
    "--database",
    type=click.Path(dir_okay=False),
    envvar="ASGI_TOKEN_AUTH_DATABASE",
    show_envvar=True,
    callback=check_for_password,
    help="The SQLite file, or the DSN of the PostgreSQL database, that holds the tokens, to look a managed one up.",
)
@json_option
@click.pass_context
def decode(
    ctx: click.Context,
    token: str | None,
    secret: str | None,
    secret_file: str | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Say what a token says, and why it would be refused.

    Also told is whether its signature holds, if a secret is given. Without TOKEN, or with -, it is read from standard
    input, where nobody else can see it. Exits with 1 if it would be refused.
    """
    signing = read_optional_secret(ctx, secret, secret_file)
    if token is None or token == "-":
        token = read_token_from_stdin()
    else:
        token = token_of(token).text
        print_to_stderr("Hint: arguments are seen by other users and kept in histories; standard input is not.")
    if token.startswith(token_prefix()):
        finding = asyncio.run(_decode_managed(token, signing, database))
    elif token.startswith(SIGNED_PREFIX):
        finding = asyncio.run(_decode_signed(token, signing))
    else:
        raise click.ClickException(
            "This is no managed or signed token: a hard-coded one or one of a custom query says nothing itself."
        )
    if finding.accepted is not False and not is_token(token):
        finding.accepted, finding.reason = False, "longer than servers take it by default"
    _print_finding(finding, as_json=as_json)
    ctx.exit(1 if finding.accepted is False else 0)


async def _decode_signed(token: str, signing: SigningSecrets | None) -> _Finding:
    finding = _Finding("signed", payload=_read_payload(token, SIGNED_PREFIX))
    # The content is judged as a server judges it, under a signature of our own making, whatever the real one is.
    throwaway = SigningSecrets(["only for this comparison"])
    try:
        again = SIGNED_PREFIX + datasette_signer(throwaway).sign(finding.payload)
    except UnicodeEncodeError:
        # JSON can spell what no text can hold; a server refuses it as malformed.
        outcome: Outcome = Rejected(Reason.MALFORMED)
    else:
        outcome = await SignedTokens(throwaway).authenticate(Credential(again))
    if signing is not None:
        known = await SignedTokens(signing).authenticate(Credential(token))
        finding.signature = not (isinstance(known, Rejected) and known.reason is Reason.BAD_SIGNATURE)
    _set_verdict(finding, outcome)
    finding.lines = _signed_fields(finding.payload) if is_object(finding.payload) else []
    return finding


async def _decode_managed(token: str, signing: SigningSecrets | None, database: str | None) -> _Finding:
    payload = _read_payload(token, token_prefix())
    token_id = payload[0] if is_array(payload) and payload else payload
    finding = _Finding("managed", token_id=token_id if type(token_id) is int else None)
    # The nonce in it is what makes the token a secret, so it is not shown.
    finding.payload = {"id": finding.token_id, "from_datasette_auth_tokens": not is_array(payload)}
    if signing is not None:
        finding.signature = ManagedTokenText(signing, prefix=token_prefix()).read(token) is not None
    if finding.token_id is None:
        finding.accepted, finding.reason = False, Reason.MALFORMED.value
    if database is not None and finding.token_id is not None:
        async with open_token_store(database, signing) as store:
            if finding.signature:
                _set_verdict(finding, await ManagedTokens(store).authenticate(Credential(token)))
            if finding.reason != Reason.UNKNOWN_TOKEN:
                try:
                    finding.row = await store.get(finding.token_id, owner=ANY_OWNER)
                except TokenNotFound:
                    finding.accepted, finding.reason = False, Reason.UNKNOWN_TOKEN.value
    if finding.signature is False:
        finding.accepted, finding.reason = False, Reason.BAD_SIGNATURE.value
    elif finding.row is not None and finding.row.status != "active" and finding.accepted is None:
        finding.accepted, finding.reason = False, finding.row.status
    return finding


def _read_payload(token: str, prefix: str) -> Any:
    signed = token[len(prefix) :].rpartition(".")[0]
    try:
        return read_payload(signed.encode("ascii"))
    except ValueError as error:
        raise click.ClickException("The token is cut off or damaged: what it says cannot be read.") from error


def _set_verdict(finding: _Finding, outcome: Outcome) -> None:
    if finding.signature is False:
        finding.accepted, finding.reason = False, Reason.BAD_SIGNATURE.value
    elif isinstance(outcome, Rejected):
        finding.accepted, finding.reason = False, outcome.reason.value
    elif isinstance(outcome, Authenticated) and finding.signature:
        finding.accepted = True


def _signed_fields(payload: Mapping[str, Any]) -> list[tuple[str, str]]:
    now, created, lifetime = time.time(), payload.get("t"), payload.get("d")
    lines = [("Actor", str(payload.get("a")))]
    if type(created) is int:
        lines.append(("Created", _relative_and_exact(created, now)))
        lines.append(("Expires", _relative_and_exact(created + lifetime, now) if type(lifetime) is int else "never"))
    if "_r" not in payload:
        return [*lines, ("May do", "all that its actor may")]
    try:
        restrictions = Restrictions.from_wire(payload["_r"])
    except InvalidInput:
        return [*lines, ("May do", "cannot be read")]
    return [*lines, *((heading, ", ".join(actions)) for heading, actions in describe(restrictions))]


def _relative_and_exact(timestamp: int, now: float) -> str:
    at = exact(timestamp)
    return "outside of the calendar" if at is None else f"{relative(timestamp, now)} ({at})"


def _print_finding(finding: _Finding, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "kind": finding.kind,
                "payload": finding.payload,
                "signature": finding.signature,
                "accepted": finding.accepted,
                "reason": finding.reason,
                "row": None if finding.row is None else record_json(finding.row),
            }
        )
        return
    lines = [("Kind", f"{finding.kind} token")]
    if finding.kind == "managed":
        lines.append(("Token", str(finding.token_id)))
    lines += finding.lines if finding.row is None else token_fields(finding.row)[1:]
    signature = {None: "not checked, because no secret is given", True: "good", False: "bad"}[finding.signature]
    lines.append(("Signature", signature))
    if finding.accepted is None:
        missing = "the secret" if finding.signature is None else "--database"
        lines.append(("Verdict", f"not known without {missing}"))
    else:
        lines.append(("Verdict", "accepted" if finding.accepted else f"refused: {finding.reason}"))
    click.echo(format_fields(lines))
