"""`Secret` as services and edge processes import it; it lives in `belvedere.secret`, where pure rooms may have it too."""

from belvedere.secret import Secret, json_default

__all__ = ["Secret", "json_default"]
