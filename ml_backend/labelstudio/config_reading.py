"""What has been seen of a label config while it is read: tags, options, what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree.ElementTree import Element

from ml_backend.domain import (
    ChoicesControl,
    ClusterTag,
    Control,
    ControlTag,
)
from ml_backend.errors import ConfigError
from ml_backend.labelstudio.config_tags import (
    attribute,
    read_choices,
    read_labels,
    tag_text,
    to_names,
)
from ml_backend.labelstudio.option_values import (
    POINTS,
    classes_of,
    classification_options,
    segmentation_options,
)
from ml_backend.labelstudio.options import (
    CHOICES_OPTIONS,
    CLUSTER_OF,
    CLUSTER_OPTIONS,
    OPTIONS,
    Option,
    model_attributes,
    read_options,
    shown,
)
from ml_backend.labelstudio.stray_options import stray_options
from ml_backend.labelstudio.values import parse_value_key

MAX_CONTROLS = 100
MAX_CHOICES = 1000  # of one control

_TAGS = {tag.value.lower(): tag for tag in ControlTag}
_CLUSTER_TAGS = frozenset({"number", "textarea"})
_MULTIPLE = "multiple"  # value of the attribute `choice`


@dataclass
class ConfigReading:
    """What has been seen of a config so far; lives for one call."""

    root: Element
    shapes: list[Element] = field(default_factory=list)
    choices: list[Element] = field(default_factory=list)
    cluster_tags: list[Element] = field(default_factory=list)  # Number and TextArea
    label_choices: list[ChoicesControl] = field(default_factory=list)  # of shapes with classes
    images: dict[str, Element] = field(default_factory=dict)
    label_tags: dict[str, Element] = field(default_factory=dict)  # Labels, by toName
    optioned: list[Element] = field(default_factory=list)  # those with model_* attributes
    names: set[str] = field(default_factory=set)
    skipped: int = 0
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def note_element(self, element: Element) -> None:
        """Keep a tag that matters, before any control is read.

        Raises:
            ConfigError: there are too many of a kind.
        """
        kind = str(element.tag).lower()
        if model_attributes(element.attrib):
            self.optioned.append(element)
        if kind == "image":
            self.images.setdefault(attribute(element, "name"), element)
        elif kind == "labels":
            for image in to_names(element):
                self.label_tags.setdefault(image, element)
        elif kind in _CLUSTER_TAGS:
            self.cluster_tags.append(element)
        elif kind == "choices":
            self.choices.append(element)
        elif kind in _TAGS:
            self.shapes.append(element)
        for found, kinds in ((self.shapes, "shape"), (self.choices, "Choices")):
            if len(found) > MAX_CONTROLS:
                raise ConfigError(
                    f"The label config has more than {MAX_CONTROLS} {kinds} controls; remove some."
                )

    def control(self, element: Element) -> Control | None:
        """Return what a shape tag asks for, None when it is not fed."""
        where = tag_text(element)
        image = self._image_of(element, where)
        if image is None:
            return None
        key = self._value_key(image)
        if key is None:
            return None
        tag = _TAGS[str(element.tag).lower()]
        bare = not tag.value.endswith("Labels")
        to_name = attribute(image, "name")
        label_tag = self.label_tags.get(to_name) if bare else element
        tags = [element, label_tag, image, self.root]
        values = self._options(tags, OPTIONS)
        if values.get("model_skip", False):
            self.skipped += 1
            return None
        name = self._name(element, where)
        labels = tuple(read_labels(label_tag)) if label_tag is not None else ()
        label = self._label(where, label_tag, labels, values)
        classes = classes_of(tag, labels, values)
        if classes:
            self.label_choices.append(
                ChoicesControl(
                    name=f"{name}/labels",
                    to_name=to_name,
                    value_key=key,
                    choices=classes,
                    objects_of=name,
                    is_label=True,
                    options=classification_options(self._options(tags, CHOICES_OPTIONS)),
                )
            )
        return Control(
            tag=tag,
            name=name,
            to_name=to_name,
            value_key=key,
            labels=labels,
            labels_name=attribute(label_tag, "name") if bare and label_tag is not None else None,
            label=label,
            classes=classes,
            segmentation=segmentation_options(values),
            score_threshold=values.get("model_score_threshold", 0.0),
            max_regions=values.get("model_max_regions"),
        )

    def choices_control(
        self, element: Element, controls: Sequence[Control]
    ) -> ChoicesControl | None:
        """Return what a Choices tag asks for, None when it is not fed.

        One for single regions is about the objects of the first of `controls` on its image.
        """
        where = tag_text(element)
        image = self._image_of(element, where)
        key = None if image is None else self._value_key(image)
        if image is None or key is None:
            return None
        values = self._options([element, image, self.root], CHOICES_OPTIONS)
        if values.get("model_skip", False):
            self.skipped += 1
            return None
        choices = tuple(read_choices(element))
        if attribute(element, "value").startswith("$") or not choices:
            self.warnings.append(
                f"{where} has no Choice tags of its own and is not fed; list the choices in it."
            )
            return None
        objects_of = None
        if attribute(element, "perRegion").lower() == "true":
            outlining = (one for one in controls if one.to_name == attribute(image, "name"))
            shape = next((one for one in outlining if one.tag not in POINTS), None)
            if shape is None:
                self.warnings.append(
                    f"{where} is for single regions (perRegion), of which there are none that are "
                    "fed; it is not fed either."
                )
                return None
            objects_of = shape.name
        if len(choices) > MAX_CHOICES:
            self.problems.append(f"{where} has more than {MAX_CHOICES} choices; remove some")
        return ChoicesControl(
            name=self._name(element, where),
            to_name=attribute(image, "name"),
            value_key=key,
            choices=choices,
            objects_of=objects_of,
            multiple=attribute(element, "choice").lower() == _MULTIPLE,
            options=classification_options(values),
        )

    def with_cluster_tags(self, controls: list[ChoicesControl]) -> list[ChoicesControl]:
        """Return the controls, each with the tag that shows its clusters' numbers."""
        by_control: dict[str, ClusterTag] = {}
        names = {control.name for control in controls if control.objects_of is None}
        for element in self.cluster_tags:
            where = tag_text(element)
            wanted = self._options([element], CLUSTER_OPTIONS).get(CLUSTER_OF)
            if wanted is None:
                continue
            if wanted not in names:
                known = ", ".join(sorted(names)) or "none"
                self.problems.append(
                    f"{where} has {CLUSTER_OF}={shown(wanted)}; Choices tags that are fed: {known}"
                )
            elif (image := self._image_of(element, where)) is not None:
                by_control[wanted] = ClusterTag(
                    tag=str(element.tag).lower(),
                    name=self._name(element, where),
                    to_name=attribute(image, "name"),
                )
        return [replace(control, cluster_tag=by_control.get(control.name)) for control in controls]

    def _name(self, element: Element, where: str) -> str:
        name = attribute(element, "name")
        if not name:
            self.problems.append(f"{where} has no name; give it one")
        elif name in self.names:
            self.problems.append(f"{where} has a name that another tag has already")
        self.names.add(name)
        return name

    def _image_of(self, element: Element, where: str) -> Element | None:
        names = to_names(element)
        images = [self.images[name] for name in names if name in self.images]
        if not images:
            target = shown(",".join(names))
            self.warnings.append(f"{where} has toName={target}, no Image tag, and is not fed.")
            return None
        if len(names) > 1:
            first = shown(attribute(images[0], "name"))
            self.warnings.append(f"{where} has several names in toName; only {first} is fed.")
        return images[0]

    def _value_key(self, image: Element) -> str | None:
        where = tag_text(image)
        if attribute(image, "valueList"):
            text = f"{where} shows a list of images (valueList), which is not supported."
            key = None
        else:
            value = attribute(image, "value")
            key = parse_value_key(value)
            text = f'{where} has value={shown(value)}; it needs a task field, like value="$image".'
        if key is None and text not in self.warnings:
            self.warnings.append(text)
        return key

    def _options(self, tags: list[Element | None], known: Mapping[str, Option]) -> dict[str, Any]:
        """Return the options that hold for a control, from the tags that may carry them."""
        found: dict[str, str] = {}
        where: dict[str, str] = {}
        for tag in tags:
            if tag is None:
                continue
            for name, text in model_attributes(tag.attrib).items():
                if name in known and name not in found:
                    found[name], where[name] = text, tag_text(tag)
        values, problems = read_options(found, where, known=known)
        self.problems += [problem for problem in problems if problem not in self.problems]
        return values

    def _label(
        self,
        where: str,
        label_tag: Element | None,
        labels: tuple[str, ...],
        values: Mapping[str, Any],
    ) -> str:
        """Return the label that the instances get, "" for a bare tag without Labels."""
        wanted, region_of_interest = values.get("model_label"), values.get("model_roi")
        if label_tag is None:
            if wanted is not None:
                self.problems.append(
                    f"{where} has model_label={shown(wanted)} but no Labels tag with its toName"
                )
            return ""
        dynamic = attribute(label_tag, "value").startswith("$")  # labels come with each task
        allowed = ", ".join(shown(label) for label in labels[:50]) or "none: it has no Label"
        for name in ("model_label", "model_roi"):
            if name in values and values[name] not in labels and not dynamic:
                self.problems.append(f"{where} has {name}={shown(values[name])}; labels: {allowed}")
        if wanted is not None:
            if wanted == region_of_interest:
                self.problems.append(f"{where} has the same label as model_label and model_roi")
            return str(wanted)
        choices = [label for label in labels if label != region_of_interest]
        if not choices:
            advice = "set model_label" if dynamic else "add a Label tag"
            self.problems.append(f"{where} has no label for the cells; {advice}")
        return choices[0] if choices else ""

    def note_stray_options(self) -> None:
        """Warn of options that nobody knows or that stand where nobody reads them."""
        self.warnings += stray_options(
            self.root,
            optioned=self.optioned,
            images=self.images.values(),
            shapes=[*self.shapes, *self.label_tags.values()],
            choices=self.choices,
            cluster_tags=self.cluster_tags,
        )
