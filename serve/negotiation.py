"""Which form a body has (Content-Type) and which form the answer gets (Accept, RFC 9110)."""

from __future__ import annotations

from collections.abc import Sequence

from artifact.manifest import TensorSpec
from serve.errors import NotAcceptable, UnsupportedMediaType

JSON = "application/json"
NPY = "application/x-npy"
NPZ = "application/x-npz"


def body_form(content_type: str | None, inputs: Sequence[TensorSpec]) -> str:
    """JSON, NPY or NPZ, as Content-Type says; raises UnsupportedMediaType.

    `.npy` holds one array, so it is a form for models with one input.
    """
    forms = _forms(inputs)
    found = (content_type or "").partition(";")[0].strip().lower()
    if found in forms:
        return found
    if found == NPY:
        names = ", ".join(spec.name for spec in inputs)
        raise UnsupportedMediaType(
            f"{NPY} holds one array, and this model takes {names}; send {NPZ} with these names"
        )
    said = f"is {found!r}" if found else "is missing"
    raise UnsupportedMediaType(f"Content-Type {said}; must be one of {', '.join(forms)}")


def answer_form(accept: str | None, body: str, outputs: Sequence[TensorSpec]) -> str:
    """JSON, NPY or NPZ, as Accept wants it most; raises NotAcceptable.

    Among equally wanted forms the body's own comes first, so `*/*` and no Accept at all answer in
    the form of the question (`.npz` where `.npy` cannot hold several outputs).
    """
    own = NPZ if body == NPY and len(outputs) > 1 else body
    forms = [own, *(form for form in _forms(outputs) if form != own)]
    if accept is None or accept in ("*/*", own):
        return own
    ranges = _ranges(accept)
    best = max(forms, key=lambda form: _quality(form, ranges))
    if _quality(best, ranges) > 0:
        return best
    hint = ""
    if len(outputs) > 1:
        hint = f" ({NPY} holds one array, this model gives {len(outputs)})"
    raise NotAcceptable(f"Accept is {accept[:200]!r}; must allow one of {', '.join(forms)}{hint}")


def _forms(specs: Sequence[TensorSpec]) -> list[str]:
    return [JSON, NPY, NPZ] if len(specs) == 1 else [JSON, NPZ]


def _ranges(accept: str) -> dict[str, float]:
    """Quality by media range; a range with a malformed quality counts as not given."""
    ranges: dict[str, float] = {}
    for part in accept.split(","):
        media, *parameters = (word.strip().lower() for word in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = -1.0
        if 0.0 <= quality <= 1.0:
            ranges[media] = quality
    return ranges


def _quality(form: str, ranges: dict[str, float]) -> float:
    """The quality that the most specific matching range gives to `form`; 0 where none matches."""
    for media in (form, "application/*", "*/*"):
        if media in ranges:
            return ranges[media]
    return 0.0
