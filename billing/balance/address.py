"""What BILLING_REDIS_URL names: one server, the sentinels that know the primary, or nodes of a cluster. Pure.

    redis://user:password@host:6379/0                        one server (rediss:// for TLS, unix:// for a socket)
    redis+sentinel://user:password@host:26379,host:26379/service/0
    redis+cluster://user:password@host:6379,host:6379/       (rediss+… for TLS)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

Kind: TypeAlias = Literal["server", "sentinel", "cluster"]
Host: TypeAlias = tuple[str, int]
"""(name or address, port); an IPv6 address has no brackets here."""

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
SENTINEL_PORT, SERVER_PORT = 26379, 6379
_SENTINEL_LOGIN = ("sentinel_username", "sentinel_password")


class BadAddress(ValueError):
    """What is wrong with it; the text repeats nothing of the address, which may carry a password."""


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """`hosts` are the sentinels, or nodes of the cluster; empty for one server, whose URL is `url`. `login`, `path`
    and `query` are what a URL of a single node has around its host."""

    kind: Kind
    url: str
    tls: bool = False
    hosts: tuple[Host, ...] = ()
    service: str = ""
    login: str = ""
    path: str = ""
    query: str = ""
    sentinel_login: str = ""

    def node_url(self, host: Host) -> str:
        """A URL of one data node, with the credentials and options given."""
        return self._url(host, self.login, self.path)

    def sentinel_url(self, host: Host) -> str:
        """A URL of one sentinel; sentinels have a login of their own (`?sentinel_password=…`), or none."""
        return self._url(host, self.sentinel_login, "")

    def _url(self, host: Host, login: str, path: str) -> str:
        scheme = "rediss" if self.tls else "redis"
        name = f"[{host[0]}]" if ":" in host[0] else host[0]
        return f"{scheme}://{login}{name}:{host[1]}{path}" + (f"?{self.query}" if self.query else "")


def parse_address(url: str) -> StoreAddress:
    """Raises BadAddress."""
    scheme, _, location = url.partition("://")
    if scheme not in SCHEMES:
        raise BadAddress(f"begin with {', '.join(f'{name}://' for name in SCHEMES)}")
    if "+" not in scheme:
        return _server(url, scheme)
    authority = re.split("[/?#]", location, maxsplit=1)[0]
    parts = urlsplit("//host" + location[len(authority) :])  # several are refused by some versions, where one is IPv6
    sentinel = scheme.endswith("+sentinel")
    login, _, hosts = authority.rpartition("@")
    service, path = _service(parts.path) if sentinel else ("", _cluster_path(parts.path))
    options = parse_qsl(parts.query, keep_blank_values=True)
    own = dict(option for option in options if option[0] in _SENTINEL_LOGIN)
    return StoreAddress(
        kind="sentinel" if sentinel else "cluster",
        url=url,
        tls=scheme.startswith("rediss"),
        hosts=_hosts(hosts, SENTINEL_PORT if sentinel else SERVER_PORT),
        service=service,
        login=f"{login}@" if login else "",
        path=path,
        query=urlencode([option for option in options if option[0] not in _SENTINEL_LOGIN]),
        sentinel_login=_login(*(own.get(name, "") for name in _SENTINEL_LOGIN)),
    )


def _server(url: str, scheme: str) -> StoreAddress:
    try:
        parts = urlsplit(url)
        well_formed = bool(parts.netloc or parts.path) and (parts.port or 1) > 0
    except ValueError:
        well_formed = False
    if not well_formed:
        raise BadAddress("be a URL such as redis://host:6379/0")
    if scheme != "unix" and not re.fullmatch(r"(/\d{0,5})?", parts.path):  # the client would take database 0 instead
        raise BadAddress("end in the number of a database, such as /0")
    login, _, _ = parts.netloc.rpartition("@")
    return StoreAddress(
        "server",
        url,
        tls=scheme == "rediss",
        login=f"{login}@" if login else "",
        path=parts.path if scheme != "unix" else "",
        query=parts.query,
    )


def _hosts(text: str, port: int) -> tuple[Host, ...]:
    found: list[Host] = []
    for part in text.split(","):
        match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:/\[\]]+))(?::(\d{1,5}))?", part.strip())
        if match is None or not 0 < int(match[3] or port) < 65536:
            raise BadAddress("name its hosts as host:port,host:port")
        found.append((match[1] or match[2], int(match[3] or port)))
    return tuple(found)


def _service(path: str) -> tuple[str, str]:
    match = re.fullmatch(r"/([^/]+)(/\d{1,5})?/?", path)
    if match is None:
        raise BadAddress("name the service that the sentinels watch: …/service or …/service/0")
    return unquote(match[1]), match[2] or ""


def _cluster_path(path: str) -> str:
    if path not in ("", "/", "/0"):
        raise BadAddress("name no database but 0: a cluster has one")
    return ""


def _login(username: str, password: str) -> str:
    if not username and not password:
        return ""
    return f"{urlencode({'': username})[1:]}:{urlencode({'': password})[1:]}@".replace("+", "%20")
