"""What a tag of a label config says about itself."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from ml_backend.labelstudio.options import shown


def attribute(element: Element, name: str) -> str:
    """Return an attribute, "" when absent; Label Studio's front end ignores the case of names."""
    value = element.get(name)
    if value is None:
        lowered = name.lower()
        value = next((v for k, v in element.attrib.items() if k.lower() == lowered), "")
    return value.strip()


def to_names(element: Element) -> list[str]:
    """Return the names of the tags that a control belongs to."""
    return [name.strip() for name in attribute(element, "toName").split(",") if name.strip()]


def read_labels(element: Element) -> Iterator[str]:
    """Yield the labels of a control as results name them: the alias where there is one."""
    seen: set[str] = set()
    for child in element.iter():
        if str(child.tag).lower() == "label":
            label = child.get("alias") or child.get("value") or ""
            if label and label not in seen:
                seen.add(label)
                yield label


def tag_text(element: Element) -> str:
    """Return the tag as it is named to a person."""
    name = attribute(element, "name")
    tag = shown(str(element.tag))[1:-1]
    return f"<{tag} name={shown(name)}>" if name else f"<{tag}>"


def read_choices(element: Element) -> Iterator[str]:
    """Yield the choices of a Choices tag as results name them: the alias where there is one."""
    seen: set[str] = set()
    for child in element.iter():
        if str(child.tag).lower() == "choice":
            choice = child.get("alias") or child.get("value") or ""
            if choice and choice not in seen:
                seen.add(choice)
                yield choice
