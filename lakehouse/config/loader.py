"""From a YAML file to a `Pipeline`, or to one error that names every mistake with its line and remedy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from lakehouse.config.checks import check
from lakehouse.config.document import Document, read_document
from lakehouse.config.models import Pipeline
from lakehouse.config.problems import as_error
from lakehouse.config.wording import problems_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lakehouse.config.problems import Problem


def load_pipeline(path: Path, env: Mapping[str, str] = os.environ) -> Pipeline:
    """Read, complete and check a pipeline file.

    `${…}` is replaced first (see `interpolation`). Paths in the file, such as the suite's, are relative to
    the file and absolute afterwards; `root` stays as it is written, relative to the working directory.

    Raises:
        ConfigError: the file cannot be read, or holds mistakes. All that can be seen at once are in the
            message, in the order of their lines; no value of source.options or of a `${file:…}` is.
    """
    pipeline, problems = _load(path, env)
    if pipeline is None or problems:
        raise as_error(path, problems)
    suite = (path.parent / pipeline.quality.suite.expanduser()).resolve()
    return pipeline.model_copy(update={"quality": pipeline.quality.model_copy(update={"suite": suite})})


def show(pipeline: Pipeline) -> str:
    """The pipeline as YAML with every default filled in. Values of source.options are stars."""
    return yaml.safe_dump(pipeline.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _load(path: Path, env: Mapping[str, str]) -> tuple[Pipeline | None, list[Problem]]:
    document = read_document(path, env)
    pipeline, mistakes = _validate(document)
    if pipeline is not None:
        mistakes = [document.problem(*finding[:3], at_key=finding.at_key) for finding in check(pipeline)]
        mistakes = [mistake for mistake in mistakes if mistake.key not in {p.key for p in document.problems}]
    return pipeline, document.problems + mistakes


def _validate(document: Document) -> tuple[Pipeline | None, list[Problem]]:
    details: list[Any]
    try:
        return Pipeline.model_validate(document.data), []
    except ValidationError as error:
        # Only its list goes on: the exception itself holds the file's values.
        details = error.errors(include_url=False)
    return None, problems_of(details, document, Pipeline)
