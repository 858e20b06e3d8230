"""Pages: templates, languages and the frame around every page."""

import pathlib
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import Path, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from jinja2 import StrictUndefined
from msgspec import Struct

from analyst.access.roles import Permission
from analyst.access.sessions import Session
from analyst.web.guard import is_https
from analyst.web.services import services
from core.messages import Unit, Value
from explain.words import ENGLISH, LANGUAGES, Writer, writer

HERE: Final = pathlib.Path(__file__).parent
_YEAR_SECONDS: Final = 365 * 24 * 3600
LARGEST_NUMBER: Final = 2**31 - 1  # of a row, in both databases
Number = Annotated[int, Path(ge=0, le=LARGEST_NUMBER)]
_PACKAGES: Final = ("analyst.web.words",)

_templates = Jinja2Templates(HERE / "templates")
_templates.env.undefined = StrictUndefined
_templates.env.trim_blocks = _templates.env.lstrip_blocks = True


class NavigationLink(Struct, frozen=True):
    """A link in the head of every page."""

    address: str
    words: str
    current: bool


_NAVIGATION: Final = (
    ("/", "ui-nav-queue", Permission.READ),
    ("/lists", "ui-nav-lists", Permission.READ),
    ("/leads", "ui-nav-leads", Permission.LEAD),
    ("/audit", "ui-nav-audit", Permission.AUDIT),
    ("/users", "ui-nav-users", Permission.ADMINISTER),
    ("/webhooks", "ui-nav-webhooks", Permission.ADMINISTER),
)


def words_of(request: Request) -> Writer:
    """Return the writer for the reader's language."""
    return console_writer(language_of(request))


def console_writer(language: str) -> Writer:
    """Return the writer of a language with the console's own words."""
    return writer(language, _PACKAGES)


def language_of(request: Request) -> str:
    """Return the page language: from the query string, the cookie or the browser's preference, in this order, else English."""
    preferred = (one.split(";")[0].strip()[:2].lower() for one in request.headers.get("accept-language", "").split(","))
    asked = (request.query_params.get("language", ""), request.cookies.get("language", ""), *preferred)
    return next((one for one in asked if one in LANGUAGES), ENGLISH)


def page(request: Request, name: str, session: Session | None, status: int = 200, /, **values: Any) -> HTMLResponse:
    """Return a page. Templates see ``t``, which writes a message of the catalogue, and the values."""
    words = words_of(request)
    frame = {
        "t": words.words,
        "language": words.language,
        "languages": [(code, name, _with_language(request, code)) for code, name in LANGUAGES.items()],
        "user": session.actor.name if session else "",
        "csrf": session.csrf if session else "",
        "navigation": _navigation(request, session, words),
    }
    response = _templates.TemplateResponse(request, name, frame | values, status_code=status)
    own = services(request)
    if "language" in request.query_params:
        secure = is_https(own.settings)
        response.set_cookie("language", words.language, max_age=_YEAR_SECONDS, samesite="lax", httponly=True, secure=secure)
    return response


def _navigation(request: Request, session: Session | None, words: Writer) -> list[NavigationLink]:
    if session is None:
        return []
    return [
        NavigationLink(address, words.words(message), request.url.path == address)
        for address, message, permission in _NAVIGATION
        if session.actor.may(permission)
    ]


def _with_language(request: Request, language: str) -> str:
    """Return the address of the same page in another language, without its path: a path such as //host would lead elsewhere."""
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "language"]
    return f"?{urlencode([*kept, ('language', language)])}"


# -- values, as the pages write them -------------------------------------------------------------------------------------------


def count(words: Writer, number: float) -> str:
    """Write a number of things."""
    return words.value(Value(Unit.COUNT, number))


def money(words: Writer, minor: float, currency: str) -> str:
    """Write an amount in minor units."""
    return words.value(Value(Unit.MONEY, minor, currency=currency))


def share(words: Writer, number: float | None) -> str:
    """Write a share in percent; a dash for None."""
    return "–" if number is None else words.value(Value(Unit.SHARE, number))


def instant(words: Writer, time: float) -> str:
    """Write a time (epoch ms), UTC."""
    return words.value(Value(Unit.INSTANT, time))


def date(words: Writer, time: float) -> str:
    """Write a day (epoch ms), UTC."""
    return words.value(Value(Unit.DATE, time))


def duration(words: Writer, ms: float) -> str:
    """Write a length of time."""
    return words.value(Value(Unit.SECONDS, abs(ms) / 1000))


def text(words: str) -> Value:
    """Return a text as a value of a message."""
    return Value(Unit.TEXT, text=words)
