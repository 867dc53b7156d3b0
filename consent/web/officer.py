"""Everything for the data protection officer, behind their session."""

from fastapi import APIRouter, Depends

from consent.web import officer_exports, officer_guardians, officer_persons, officer_requests, officer_views
from consent.web.state import officer

router = APIRouter(dependencies=[Depends(officer)], include_in_schema=False)
for part in (officer_views, officer_requests, officer_persons, officer_guardians, officer_exports):
    router.include_router(part.router)
