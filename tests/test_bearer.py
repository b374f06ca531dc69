"""Credentials on the wire: RFC 6750 and RFC 9110, one named row for each rule."""

import json
import re
import timeit
import tracemalloc
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_token_auth.bearer import (
    CREDENTIAL_REQUIRED,
    EXPIRED_TOKEN,
    INVALID_TOKEN,
    REVOKED_TOKEN,
    UNAVAILABLE,
    CredentialReader,
    Fault,
    QueryParameter,
    Reading,
    Refusal,
    challenge,
    insufficient_scope,
    invalid_request,
    is_token,
)
from asgi_token_auth.errors import ConfigurationError

PARAMETER = QueryParameter("_auth_token")
Header = tuple[bytes, bytes]


def authorization(*values: bytes) -> list[Header]:
    return [(b"authorization", value) for value in values]


def read(headers: list[Header], query: bytes = b"", *, allowed: bool = True, maximum: int = 8192) -> Reading:
    reader = CredentialReader(parameter=PARAMETER, max_token_bytes=maximum)
    return reader.read(headers, query=query, parameter_allowed=allowed)


ACCEPTED: dict[str, tuple[list[Header], bytes, str]] = {
    "S1 as written in the RFC": (authorization(b"Bearer one"), b"", "one"),
    "S1 lower case": (authorization(b"bearer one"), b"", "one"),
    "S1 upper case": (authorization(b"BEARER one"), b"", "one"),
    "S1 mixed case": (authorization(b"bEaReR one"), b"", "one"),
    "S2 two spaces": (authorization(b"Bearer  one"), b"", "one"),
    "S2 many spaces": (authorization(b"Bearer" + b" " * 50 + b"one"), b"", "one"),
    "S3 every character of b64token": (authorization(b"Bearer aZ09-._~+/=="), b"", "aZ09-._~+/=="),
    "S3 a colon, which is outside the grammar": (authorization(b"Bearer a:b"), b"", "a:b"),
    "S3 the first and the last visible character": (authorization(b"Bearer !~"), b"", "!~"),
    "S3 a percent sign is not decoded in a header": (authorization(b"Bearer a%41"), b"", "a%41"),
    "whitespace around the field value": (authorization(b" \tBearer one \t"), b"", "one"),
    "a header name in capitals": ([(b"AUTHORIZATION", b"Bearer one")], b"", "one"),
    "other headers beside it": (
        [(b"host", b"x"), (b"x-authorization", b"Bearer no"), *authorization(b"Bearer one")],
        b"",
        "one",
    ),
    "a token that is the word Bearer": (authorization(b"Bearer Bearer"), b"", "Bearer"),
    "the longest token": (authorization(b"Bearer " + b"a" * 8192), b"", "a" * 8192),
    "the parameter": ([], b"_auth_token=one", "one"),
    "the parameter between others": ([], b"a=1&_auth_token=one&b=2", "one"),
    "the parameter's name percent-encoded": ([], b"%5fauth%5Ftoken=one", "one"),
    "the parameter's name wholly percent-encoded": (
        [],
        b"".join(b"%%%02x" % byte for byte in b"_auth_token") + b"=one",
        "one",
    ),
    "the parameter's value percent-encoded": ([], b"_auth_token=%6f%6Ee%2f", "one/"),
    "an equals sign within the parameter's value": ([], b"_auth_token=one==", "one=="),
    "a semicolon is part of the value": ([], b"_auth_token=one;b=2", "one;b=2"),
    "the longest parameter": ([], b"_auth_token=" + b"a" * 8192, "a" * 8192),
    "another scheme beside the parameter": (authorization(b"Basic dTpw"), b"_auth_token=one", "one"),
    "two headers of another scheme beside the parameter": (
        authorization(b"Basic dTpw", b"Digest x"),
        b"_auth_token=one",
        "one",
    ),
}

REFUSED: dict[str, tuple[list[Header], bytes, Fault]] = {
    "S2 a tab for the space": (authorization(b"Bearer\tone"), b"", Fault.MALFORMED),
    "S2 a tab after the space": (authorization(b"Bearer \tone"), b"", Fault.MALFORMED),
    "S2 a no-break space": (authorization(b"Bearer\xa0one"), b"", Fault.MALFORMED),
    "S2 a no-break space in UTF-8": (authorization("Bearer\u00a0one".encode()), b"", Fault.MALFORMED),
    "S2 a no-break space after the space": (authorization(b"Bearer \xa0one"), b"", Fault.MALFORMED),
    "S2 a colon for the space": (authorization(b"Bearer:one"), b"", Fault.MALFORMED),
    "S3 no token": (authorization(b"Bearer"), b"", Fault.MALFORMED),
    "S3 a space and no token": (authorization(b"Bearer "), b"", Fault.MALFORMED),
    "S3 spaces and no token": (authorization(b"Bearer   "), b"", Fault.MALFORMED),
    "S3 two tokens": (authorization(b"Bearer one two"), b"", Fault.MALFORMED),
    "S3 a comma": (authorization(b"Bearer one,two"), b"", Fault.MALFORMED),
    "S3 a byte beyond ASCII": (authorization(b"Bearer on\xe9"), b"", Fault.MALFORMED),
    "S3 text beyond ASCII": (authorization("Bearer oné".encode()), b"", Fault.MALFORMED),
    "S3 a NUL": (authorization(b"Bearer on\x00e"), b"", Fault.MALFORMED),
    "S3 a DEL": (authorization(b"Bearer one\x7f"), b"", Fault.MALFORMED),
    "S3 a line break at the end": (authorization(b"Bearer one\n"), b"", Fault.MALFORMED),
    "S12 two headers that a proxy joined": (authorization(b"Bearer one, Bearer two"), b"", Fault.MALFORMED),
    "S12 the header twice": (authorization(b"Bearer one", b"Bearer two"), b"", Fault.REPEATED),
    "S12 the header twice with one token": (authorization(b"Bearer one", b"Bearer one"), b"", Fault.REPEATED),
    "S12 the header twice in two spellings": (
        [(b"authorization", b"Bearer one"), (b"Authorization", b"Bearer one")],
        b"",
        Fault.REPEATED,
    ),
    "S12 Basic, then Bearer": (authorization(b"Basic dTpw", b"Bearer one"), b"", Fault.REPEATED),
    "S12 Bearer, then Basic": (authorization(b"Bearer one", b"Basic dTpw"), b"", Fault.REPEATED),
    "Basic and Bearer joined": (authorization(b"Basic dTpw, Bearer one"), b"", Fault.REPEATED),
    "joined without a space": (authorization(b"Basic dTpw,bearer one"), b"", Fault.REPEATED),
    "joined behind a quoted comma": (authorization(b'Digest username="a, b", Bearer one'), b"", Fault.REPEATED),
    "three joined": (authorization(b"Basic dTpw, Negotiate abc,\tBEARER one"), b"", Fault.REPEATED),
    "joined, and the parameter": (authorization(b"Basic dTpw, Bearer one"), b"_auth_token=two", Fault.REPEATED),
    "S12 Bearer, then an empty header": (authorization(b"Bearer one", b""), b"", Fault.REPEATED),
    "S4 header and parameter": (authorization(b"Bearer one"), b"_auth_token=two", Fault.REPEATED),
    "S4 header and parameter with one token": (authorization(b"Bearer one"), b"_auth_token=one", Fault.REPEATED),
    "S4 header and an empty parameter": (authorization(b"Bearer one"), b"_auth_token=", Fault.REPEATED),
    "S4 header and an encoded parameter": (authorization(b"Bearer one"), b"%5Fauth_token=one", Fault.REPEATED),
    "S4 an empty header and the parameter": (authorization(b"Bearer"), b"_auth_token=one", Fault.REPEATED),
    "S4 the parameter twice": ([], b"_auth_token=one&_auth_token=two", Fault.REPEATED),
    "S4 the parameter twice with one token": ([], b"_auth_token=one&a=1&_auth_token=one", Fault.REPEATED),
    "S4 the parameter twice, once encoded": ([], b"_auth_token=one&%5fauth_token=one", Fault.REPEATED),
    "an empty parameter": ([], b"_auth_token=", Fault.MALFORMED),
    "the parameter without a value": ([], b"_auth_token", Fault.MALFORMED),
    "the parameter with a comma": ([], b"_auth_token=a%2Cb", Fault.MALFORMED),
    "the parameter with a plus, which is a space": ([], b"_auth_token=a+b", Fault.MALFORMED),
    "the parameter with a space at its end": ([], b"_auth_token=one%20", Fault.MALFORMED),
    "the parameter with a NUL": ([], b"_auth_token=%00", Fault.MALFORMED),
    "the parameter with text beyond ASCII": ([], b"_auth_token=on%C3%A9", Fault.MALFORMED),
    "one byte too long": (authorization(b"Bearer " + b"a" * 8193), b"", Fault.TOO_LONG),
    "too long and malformed": (authorization(b"Bearer " + b"\xff" * 9000), b"", Fault.TOO_LONG),
    "a parameter that is too long": ([], b"_auth_token=" + b"a" * 8193, Fault.TOO_LONG),
    "a parameter that would be short enough when decoded": ([], b"_auth_token=" + b"%41" * 2731, Fault.TOO_LONG),
}

NO_CREDENTIAL: dict[str, tuple[list[Header], bytes]] = {
    "nothing at all": ([], b""),
    "an empty header": (authorization(b""), b""),
    "Basic": (authorization(b"Basic dTpw"), b""),
    "a scheme that starts with bearer": (authorization(b"Bearerish one"), b""),
    "a scheme that starts with bearer and a hyphen": (authorization(b"Bearer-x one"), b""),
    "a shorter word": (authorization(b"Bear one"), b""),
    "a token without a scheme": (authorization(b"one"), b""),
    "several headers, none of them Bearer": (authorization(b"Basic dTpw", b"Digest x"), b""),
    "Bearer within quotes": (authorization(b'Digest username="x, Bearer one", realm="y"'), b""),
    "a parameter called bearer": (authorization(b"Digest a=b, bearer=one, bearer"), b""),
    "Proxy-Authorization": ([(b"proxy-authorization", b"Bearer one")], b""),
    "a header of the same length": ([(b"authorisation", b"Bearer one")], b""),
    "a header name with an underscore": ([(b"authorization_", b"Bearer one")], b""),
    "the parameter in capitals": ([], b"_AUTH_TOKEN=one"),
    "a longer parameter": ([], b"x_auth_token=one&_auth_token_=two"),
    "the parameter's name as a value": ([], b"a=_auth_token"),
    "the parameter behind a semicolon": ([], b"a=1;_auth_token=one"),
    "the parameter's name with a line break": ([], b"_auth_token\n"),
    "the parameter's name encoded twice": ([], b"%255fauth_token=one"),
}


@pytest.mark.parametrize(("headers", "query", "token"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_reads_the_credential(headers: list[Header], query: bytes, token: str) -> None:
    reading = read(headers, query)
    assert (reading.token, reading.fault) == (token, None)


@pytest.mark.parametrize(("headers", "query", "fault"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses_what_is_not_exactly_one_credential(headers: list[Header], query: bytes, fault: Fault) -> None:
    reading = read(headers, query)
    assert (reading.token, reading.fault) == (None, fault)


@pytest.mark.parametrize(("headers", "query"), NO_CREDENTIAL.values(), ids=NO_CREDENTIAL.keys())
def test_sees_no_credential(headers: list[Header], query: bytes) -> None:
    assert read(headers, query) == Reading()


def test_the_header_of_the_token_is_named_by_its_place() -> None:
    reading = read([(b"host", b"x"), (b"cookie", b"a=b"), *authorization(b"Bearer one")])
    assert reading.header == 2
    assert read([], b"_auth_token=one").header is None


def test_any_iterable_of_headers_will_do() -> None:
    assert CredentialReader().read(iter(authorization(b"Bearer one"))).token == "one"


def test_the_parameter_is_off_unless_asked_for() -> None:
    assert CredentialReader().read([], query=b"_auth_token=one") == Reading()


def test_the_parameter_is_refused_on_another_method_and_still_taken_out_of_the_query() -> None:
    reading = read([], b"a=1&_auth_token=one", allowed=False)
    assert reading == Reading(fault=Fault.WRONG_METHOD, query=b"a=1")


def test_the_header_is_read_on_any_method() -> None:
    assert read(authorization(b"Bearer one"), b"a=1", allowed=False).token == "one"


@pytest.mark.parametrize("query", [q for _, q, _ in REFUSED.values() if b"auth_token" in q])
def test_a_refused_parameter_is_taken_out_of_the_query_too(query: bytes) -> None:
    """The access log is written for refused requests as well."""
    cleaned = read([], query).query
    assert cleaned is not None
    assert b"auth" not in unquote_to_bytes(cleaned)


def test_a_query_without_the_parameter_is_not_reported_as_cleaned() -> None:
    assert read(authorization(b"Bearer one"), b"a=1").query is None


def test_length_is_checked_before_anything_is_decoded() -> None:
    """Decoding 5 MB of percent signs would take many times that."""
    query = b"_auth_token=" + b"%41" * 1_700_000
    headers = authorization(b"Bearer " + b"a" * 5_000_000)
    tracemalloc.start()
    try:
        assert read([], query).fault is Fault.TOO_LONG
        assert read(headers).fault is Fault.TOO_LONG
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6_000_000


def test_a_field_that_comes_again_is_not_read_again() -> None:
    reader = CredentialReader()
    first = reader.read(authorization(b"Bearer one"))
    reader.remember(b"Bearer one", first)
    assert reader.read(authorization(b"Bearer one")) is first
    assert reader.read(authorization(b"Bearer two")).token == "two"
    assert reader.read(authorization(b"bearer one")).token == "one"


def test_what_is_remembered_of_a_field_does_not_say_where_it_stands_now() -> None:
    """Else the app would get the token, and lose another header."""
    reader = CredentialReader()
    reader.remember(b"Bearer one", reader.read(authorization(b"Bearer one")))
    for others in ([], [(b"host", b"x")], [(b"host", b"x"), (b"cookie", b"a=b")], []):
        assert reader.read([*others, *authorization(b"Bearer one")]).header == len(others)


def test_a_field_need_not_be_bytes_that_can_be_remembered() -> None:
    headers: list[Header] = [(b"authorization", bytearray(b"Bearer one"))]  # type: ignore[list-item]
    assert CredentialReader().read(headers).token == "one"


def test_what_strangers_send_is_not_remembered_and_the_rest_up_to_a_limit() -> None:
    reader = CredentialReader()
    for number in range(3_000):
        value = b"Bearer %d" % number
        reading = reader.read(authorization(value))
        assert reading.token == str(number)
        assert reader.read(authorization(value)) is not reading
        reader.remember(value, reading)
        assert len(reader._known) <= 1_000
        assert reader.read(authorization(value)) is reading
    reader.remember(b"Bearer " + b"a" * 506, reading)
    assert reader.read(authorization(b"Bearer " + b"a" * 506)).token == "a" * 506


def test_the_limit_is_the_callers() -> None:
    assert read(authorization(b"Bearer " + b"a" * 64), maximum=64).token == "a" * 64
    assert read(authorization(b"Bearer " + b"a" * 65), maximum=64).fault is Fault.TOO_LONG


REMOVED = {
    "alone": (b"_auth_token=one", b""),
    "first": (b"_auth_token=one&a=1", b"a=1"),
    "last": (b"a=1&_auth_token=one", b"a=1"),
    "between": (b"a=1&_auth_token=one&b=2", b"a=1&b=2"),
    "twice": (b"_auth_token=one&a=1&%5fauth_token=two", b"a=1"),
    "twice in a row": (b"_auth_token=one&_auth_token=two&a=1", b"a=1"),
    "without a value": (b"_auth_token&a=1", b"a=1"),
    "empty pairs stay": (b"&&_auth_token=one&&a=1&", b"&&&a=1&"),
    "first, before an empty pair": (b"_auth_token=one&&a=1", b"&a=1"),
    "odd bytes of others stay": (b"a=%zz;+\xff&_auth_token=one&b==&c", b"a=%zz;+\xff&b==&c"),
    "a semicolon belongs to the value": (b"_auth_token=one;b=2&c=3", b"c=3"),
    "a name that merely ends in it stays": (b"x_auth_token=one", b"x_auth_token=one"),
    "nothing to remove": (b"a=1&b=2", b"a=1&b=2"),
    "empty": (b"", b""),
}


@pytest.mark.parametrize(("query", "expected"), REMOVED.values(), ids=REMOVED.keys())
def test_remove_takes_out_the_parameter_and_nothing_else(query: bytes, expected: bytes) -> None:
    assert PARAMETER.remove(query) == expected


def is_the_parameter(pair: bytes) -> bool:
    return unquote_to_bytes(pair.partition(b"=")[0]) == b"_auth_token"


queries = st.lists(
    st.one_of(
        st.sampled_from([b"_auth_token=one", b"%5Fauth%5ftoken=t%77o", b"_auth_token", b"_auth_tokens=1", b"", b"="]),
        st.binary(max_size=8),
        st.text("_auth_token=%5fF&;\n+", max_size=14).map(str.encode),
    ),
    max_size=6,
).map(b"&".join)


@given(queries)
@example(b"_auth_token\n")
@example(b"\n_auth_token=1\n&_auth_token\n")
@settings(max_examples=300, deadline=None)
def test_remove_and_find_agree_with_splitting_at_every_ampersand(query: bytes) -> None:
    """The model decodes the name of each pair; the code under test decodes nothing."""
    pairs = query.split(b"&") if query else []
    kept = [pair for pair in pairs if not is_the_parameter(pair)]
    values = [pair.partition(b"=")[2] for pair in pairs if is_the_parameter(pair)]
    assert PARAMETER.find(query) == values[:2]
    assert PARAMETER.remove(query) == (b"&".join(kept) if values else query)


@pytest.mark.parametrize("name", ["t", "access_token", "a.b~c-d", "X9", "_" * 64])
def test_a_parameter_of_any_permitted_name_is_found_in_every_spelling(name: str) -> None:
    parameter = QueryParameter(name)
    encoded = name.encode()
    for spelled in (encoded, b"".join(b"%%%02x" % b for b in encoded), b"".join(b"%%%02X" % b for b in encoded)):
        assert parameter.find(b"a=1&" + spelled + b"=one&b=2") == [b"one"]
        assert parameter.remove(b"a=1&" + spelled + b"=one&b=2") == b"a=1&b=2"
    assert parameter.find(b"a=1&" + encoded.replace(b".", b"x")[:-1] + b"=one") == []


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a&b", "é", "a\n", "%41", "x" * 65, 5, None, b"a"])
def test_a_name_that_cannot_be_a_parameter_is_refused_without_repeating_it(name: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^parameter: give the name") as caught:
        QueryParameter(name)  # type: ignore[arg-type]
    assert repr(name) not in str(caught.value) or name in ("", None)


header_bytes = st.one_of(
    st.binary(max_size=40),
    st.builds(
        bytes.__add__,
        st.sampled_from([b"Bearer ", b"bearer", b"Bearer  ", b" BEARER\t", b"Basic "]),
        st.binary(max_size=90),
    ),
)


@given(
    headers=st.lists(
        st.tuples(st.sampled_from([b"authorization", b"Authorization", b"host", b"x" * 13]), header_bytes), max_size=3
    ),
    query=st.one_of(queries, st.binary(max_size=120), st.binary(max_size=90).map(b"_auth_token=".__add__)),
    allowed=st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_no_bytes_raise_and_every_token_is_short_visible_ascii(
    headers: list[Header], query: bytes, allowed: bool
) -> None:
    reading = read(headers, query, allowed=allowed, maximum=64)
    assert reading.token is None or reading.fault is None
    if reading.token is not None:
        assert re.fullmatch(r"[\x21-\x2b\x2d-\x7e]{1,64}", reading.token)
        assert is_token(reading.token, max_token_bytes=64)


@given(
    st.lists(
        st.tuples(
            st.lists(
                st.tuples(
                    st.sampled_from([b"authorization", b"Authorization", b"host"]),
                    st.sampled_from([b"Bearer one", b"bearer one", b"Bearer two", b"Bearer  one", b"Bearer a b", b"x"]),
                ),
                max_size=3,
            ),
            st.sampled_from([b"", b"a=1", b"_auth_token=one"]),
        ),
        max_size=12,
    )
)
@settings(max_examples=200, deadline=None)
def test_one_request_is_read_alike_whatever_came_before(requests: list[tuple[list[Header], bytes]]) -> None:
    reader = CredentialReader(parameter=PARAMETER)
    for headers, query in requests:
        assert reader.read(headers, query=query) == read(headers, query)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=","), min_size=1, max_size=60))
@settings(max_examples=100, deadline=None)
def test_every_token_travels_unchanged_in_header_and_parameter(token: str) -> None:
    assert read(authorization(b"Bearer " + token.encode())).token == token
    encoded = b"".join(b"%%%02x" % byte for byte in token.encode())
    assert read([], b"_auth_token=" + encoded).token == token


@pytest.mark.parametrize("text", ["", "a b", "a,b", "é", "\ud800", "a\n", "a" * 8193])
def test_text_that_could_not_be_sent_is_no_token(text: str) -> None:
    assert not is_token(text)


REFUSALS = {
    "invalid_request": (invalid_request(Fault.REPEATED), 400, "invalid_request"),
    "invalid_token": (INVALID_TOKEN, 401, "invalid_token"),
    "expired": (EXPIRED_TOKEN, 401, "invalid_token"),
    "revoked": (REVOKED_TOKEN, 401, "invalid_token"),
    "insufficient_scope": (insufficient_scope("Not this far.", "view-table"), 403, "insufficient_scope"),
    "required": (CREDENTIAL_REQUIRED, 401, None),
}

# auth-param of RFC 9110 section 11.2, with the characters that RFC 6750 section 3 allows inside the quotes.
PAIR = re.compile(r'([a-z_]+)="([\x20-\x21\x23-\x5b\x5d-\x7e]*)"(?:, |$)')


def parameters_of(value: str) -> dict[str, str]:
    """The parameters of a Bearer challenge; fails where the grammar does."""
    scheme, _, rest = value.partition(" ")
    assert scheme == "Bearer"
    found: dict[str, str] = {}
    position = 0
    while position < len(rest):
        match = PAIR.match(rest, position)
        assert match is not None, rest
        assert match[1] not in found
        found[match[1]] = match[2]
        position = match.end()
    assert not rest.endswith(", ")
    return found


@pytest.mark.parametrize(("refusal", "status", "error"), REFUSALS.values(), ids=REFUSALS.keys())
def test_every_refusal_carries_a_challenge_by_the_grammar(refusal: Refusal, status: int, error: str | None) -> None:
    assert refusal.status == status
    headers = dict(refusal.headers("api"))
    assert len(headers) == len(refusal.headers("api"))
    found = parameters_of(headers[b"www-authenticate"].decode("ascii"))
    assert found["realm"] == "api"
    assert found.get("error") == error
    assert ("error_description" in found) == (error is not None)


def test_every_fault_has_a_description_that_the_grammar_allows() -> None:
    for fault in Fault:
        headers = dict(invalid_request(fault).headers("api"))
        assert parameters_of(headers[b"www-authenticate"].decode())["error_description"] == str(fault)


def test_a_challenge_without_a_credential_names_no_error() -> None:
    """RFC 6750 section 3.1: no error code where no credential was given."""
    assert challenge("api") == 'Bearer realm="api"'
    assert challenge("api", "invalid_token") == 'Bearer realm="api", error="invalid_token"'


def test_a_forbidden_token_is_told_the_scope_it_lacks() -> None:
    headers = dict(insufficient_scope("Not this far.", "view-table").headers("api"))
    assert parameters_of(headers[b"www-authenticate"].decode())["scope"] == "view-table"


@given(st.text(), st.text(), st.text())
@settings(max_examples=150, deadline=None)
def test_no_text_breaks_out_of_a_challenge(realm: str, description: str, scope: str) -> None:
    found = parameters_of(challenge(realm, "invalid_token", description, scope))
    assert set(found) == {"realm", "error", "error_description", "scope"}


def test_unavailable_is_no_judgement_of_the_token() -> None:
    headers = dict(UNAVAILABLE.headers("api"))
    assert UNAVAILABLE.status == 503
    assert headers[b"retry-after"] == b"5"
    assert b"www-authenticate" not in headers


@pytest.mark.parametrize("refusal", [*(row[0] for row in REFUSALS.values()), UNAVAILABLE])
def test_a_refusal_is_json_that_nobody_keeps(refusal: Refusal) -> None:
    headers = dict(refusal.headers("api", [(b"access-control-allow-origin", b"*")]))
    assert headers[b"content-type"] == b"application/json; charset=utf-8"
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"access-control-allow-origin"] == b"*"
    assert json.loads(refusal.body()) == {
        "ok": False,
        "error": refusal.message,
        "errors": [refusal.message],
        "status": refusal.status,
    }


@pytest.mark.parametrize(("headers", "query", "fault"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_depends_on_the_kind_of_fault_alone(headers: list[Header], query: bytes, fault: Fault) -> None:
    """Nothing of what came is echoed, because nothing of it reaches the refusal."""
    reading = read(headers, query)
    assert reading.fault is not None
    assert invalid_request(reading.fault) == Refusal(400, str(fault), error="invalid_request")


@pytest.mark.parametrize("tail", [b'\\"', b'"', b"\\", b'a"', b",", b'",'])
def test_a_long_field_of_another_scheme_costs_no_more_than_its_length(tail: bytes) -> None:
    """A pattern that goes back makes this take minutes, which the time limit of every test ends."""
    for size in (65_000, 1_000_000):
        field = b'Digest ,"' + tail * (size // len(tail))
        for _ in range(20):
            reading = CredentialReader().read([(b"authorization", field)])
        assert reading.fault is (Fault.REPEATED if len(field) > 65_536 else None)


PIECES = (
    *(b"bearer", b"Bearer", b"BEARER", b"be", b"arer", b"tok", b"Basic x", b",", b" ", b"\t", b"\n", b"\x0b", b"\x0c"),
    *(b'"', b"\\", b'\\"', b"(", b"-", b"^", b"]", b"~", b"=", b"\x00", b"\x1c", b"\x85", b"\xe9"),
)


@settings(max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join))
@example(b",bearer(tok")
@example(b",bearer( tok")
@example(b',be"y"arer tok')
@example(b",bearer ,tok")
def test_a_second_credential_is_found_where_the_rules_say(field: bytes) -> None:
    """Member by member, as slowly as they are written down."""
    field = b"Basic x" + field
    members = re.sub(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', b"", field, flags=re.DOTALL).split(b",")
    expected = any(
        re.fullmatch(rb"[ \t]*bearer([^!#$%&'*+.^_`|~0-9a-z-].*)?", member, re.DOTALL | re.IGNORECASE)
        and len(member.split()) > 1
        for member in members[1:]
    )
    assert (read(authorization(field)).fault is Fault.REPEATED) is expected


@pytest.mark.parametrize("pieces", [b",", b", "], ids=repr)
def test_a_field_of_many_members_costs_little(pieces: bytes) -> None:
    field = b"Basic x" + pieces * (65_000 // len(pieces))
    best = min(timeit.repeat(lambda: read(authorization(field)), number=1, repeat=20))
    once = min(timeit.repeat(lambda: field.lower().translate(None, b"a"), number=1, repeat=20))
    # A Python object for each member would be a hundred times as much.
    assert best < once * 40


def test_a_quote_that_nobody_closes_hides_what_follows_it() -> None:
    assert CredentialReader().read(authorization(b'Digest a="b, Bearer one')) == Reading()
    assert CredentialReader().read(authorization(b'Digest a="b\\", Bearer one')) == Reading()
