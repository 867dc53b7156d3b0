"""Publishing a version of a request, so that a grant under a text that was replaced counts no longer.

Rules kept: what makes earlier grants void is written before the version is there, and the registry is told before too.
If the process dies in between, too few grants count until the officer publishes again, never too many.
"""

from sqlmodel import col, select

from consent.registry import Registry
from consent.web.notices import Version, superseded
from consent.web.officer_tables import MaterialVersion
from consent.web.request import ConsentRequest
from consent.web.store import Notice, Store
from federation.storage.database import read, write


def versions(store: Store, request: str) -> list[Version]:
    """Every version of a request, oldest first, as far as counting goes."""
    with read(store.engine) as session:
        query = select(MaterialVersion.version).where(col(MaterialVersion.request) == request)
        material = set(session.exec(query))
    return [Version(row.version, row.asked, row.version in material) for row in store.notices(request)]


def publish(
    store: Store, registry: Registry, request: str, asked: ConsentRequest, *, change: str = "", material: bool = False
) -> Notice:
    """Publish a version; ``material`` asks everybody again, and so does every change of terms."""
    before = versions(store, request)
    number = before[-1].number + 1 if before else 1
    if before and before[-1].asked == asked:
        return store.publish(request, asked, change=change)  # the same again is no new version
    if material:
        with write(store.engine) as session:
            session.merge(MaterialVersion(request=request, version=number))
    tell(store, registry, {request: [*before, Version(number, asked, material)]})
    return store.publish(request, asked, change=change)


def tell(store: Store, registry: Registry, coming: dict[str, list[Version]] | None = None) -> None:
    """Tell the registry which texts carry a grant no longer; ``coming`` is what is about to be published."""
    known = {row.id: versions(store, row.id) for row in store.requests()} | (coming or {})
    registry.replace_notices(superseded(*known.values()))
