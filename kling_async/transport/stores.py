"""
Object stores by their URL: `s3://bucket/path`, `gs://bucket/path`, `az://container/path`, through obstore (extra `cloud`).

Credentials, regions and endpoints come from the environment, as for the tools of each cloud (`AWS_ACCESS_KEY_ID`,
`AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME`, …). `memory://name/path` lies in
this process and lives as long as it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from attrs import field, frozen

from kling_async.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

    Store: TypeAlias = AzureStore | GCSStore | MemoryStore | S3Store

__all__ = ["SCHEMES", "Place", "is_store_url", "open_place", "reason"]

SCHEMES = ("s3", "gs", "az", "memory")

# Of this process: what is written under a name is found again under it.
_in_memory: dict[str, MemoryStore] = {}


@frozen(kw_only=True)
class Place:
    """
    A *path* (without a slash in front, empty for the top) in a bucket or container, whose *store* is ready for use.

    *url* is where it is, without credentials. Two places are the same if their URLs are.
    """

    url: str
    path: str
    # obstore's own repr shows account names, and panics for Azure where there are none.
    store: Store = field(repr=False, eq=False)


def is_store_url(text: str) -> bool:
    """Tell whether *text* names a place in an object store."""
    scheme, colon, _ = text.partition("://")
    return bool(colon) and scheme.lower() in SCHEMES


def open_place(url: str, name: str = "out") -> Place:
    """
    Return the place that *url* names; nothing is asked of the store yet.

    What comes after the bucket is the path as it stands, as for the tools of the clouds: nothing is unquoted. *name* is
    the argument or field at fault in errors. Raises `MissingExtra` without obstore, and `ConfigError` for a URL without
    a bucket or with credentials, and for settings that the store cannot work with.
    """
    scheme, _, rest = url.strip().partition("://")
    scheme, (bucket, _, path) = scheme.lower(), rest.partition("/")
    rule = f"{name}: expected a place such as s3://bucket/folder (also gs, az)"
    if scheme not in SCHEMES:
        raise ConfigError(f"{rule}, found the scheme {scheme!r}; write one of {', '.join(SCHEMES)}")
    if "@" in bucket:
        raise ConfigError(f"{rule}, found one with credentials; put those into the environment")
    if not bucket:
        raise ConfigError(f"{rule}, found one that names no bucket; write it after ://")
    try:
        store = _open(scheme, bucket)
    except ImportError:
        raise MissingExtra(
            f"{name}: object stores need obstore; install it with: pip install 'kling-async[cloud]'", "cloud"
        ) from None
    except Exception as error:
        trouble = f"the store of {scheme}://{bucket} cannot be opened ({reason(error)})"
        raise ConfigError(f"{name}: {trouble}; check its settings in the environment") from error
    path = path.strip("/")
    return Place(url=f"{scheme}://{bucket}/{path}".rstrip("/"), path=path, store=store)


def _open(scheme: str, bucket: str) -> Store:
    from obstore import store  # an extra, imported where it is used

    if scheme == "s3":
        return store.S3Store(bucket)
    if scheme == "gs":
        return store.GCSStore(bucket)
    if scheme == "az":
        return store.AzureStore(bucket)
    return _in_memory.setdefault(bucket, store.MemoryStore())


def reason(error: BaseException) -> str:
    """Say in one line why a store failed; obstore's own texts go on for pages, with addresses and headers."""
    text = str(error).strip().partition("\n")[0]
    return (text if len(text) <= 200 else f"{text[:197]}…") or type(error).__name__
