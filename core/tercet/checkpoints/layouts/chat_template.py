"""Chat templates of rerankers: Jinja, rendered once in a sandbox, kept as the texts around query and document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tercet.checkpoints.files import Files, read_settings
from tercet.checkpoints.spec import PairTemplate
from tercet.errors import CheckpointError, UnsupportedModelError

# Private-use characters, which no template contains, stand for what will be filled in.
_INSTRUCTION, _QUERY, _DOCUMENT = "\ue000", "\ue001", "\ue002"


def declared_template(files: Files) -> PairTemplate | None:
    """Return the template where the Transformer module reads messages, None where it reads pairs of texts.

    The default prompt, if there is one, is its instruction.

    Raises:
        UnsupportedModelError: there is no template, or it does not know the roles "query" and "document".
    """
    if "message" not in files.transformer.typed("modality_config", dict, {}):
        return None
    template = read_pair_template(files)
    if template is None:
        raise UnsupportedModelError(
            f"{files.folder}: the chat template does not show a message of role 'query' and then one of role 'document'"
        )
    settings = files.sentence_transformers
    prompt = settings.typed("prompts", dict, {}).get(settings.get("default_prompt_name"))
    return replace(template, instruction=prompt) if prompt and template.instruction is not None else template


def read_pair_template(files: Files) -> PairTemplate | None:
    """Return the template of (query, document) pairs, None where the checkpoint has none that knows these roles.

    Raises:
        CheckpointError: the template cannot be rendered.
    """
    source = _source(files)
    if source is None:
        return None
    given = _split(_render(files, source, _messages(files, _INSTRUCTION)), (_INSTRUCTION, _QUERY, _DOCUMENT))
    plain = _split(_render(files, source, _messages(files)), (_QUERY, _DOCUMENT))
    if plain is None:
        return None
    before_query, before_document, end = plain
    if given is not None and before_query.startswith(given[0]) and before_query.endswith(given[1]):
        instruction = before_query[len(given[0]) : len(before_query) - len(given[1])]
        return PairTemplate(given[0], given[1], before_document, end, instruction)
    return PairTemplate(before_query, "", before_document, end)


def _source(files: Files) -> str | None:
    file = files.folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    template = read_settings(files.folder / "tokenizer_config.json").get("chat_template")
    return template if isinstance(template, str) else None


def _messages(files: Files, instruction: str | None = None) -> Sequence[Mapping[str, Any]]:
    """Return what sentence-transformers hands to the template for one pair."""
    texts = {"system": instruction, "query": _QUERY, "document": _DOCUMENT}
    modalities = files.transformer.typed("modality_config", dict, {})
    flat = modalities.get("message", {}).get("format") != "structured"
    return [
        {"role": role, "content": text if flat else [{"type": "text", "text": text}]}
        for role, text in texts.items()
        if text is not None
    ]


def _render(files: Files, source: str, messages: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the conversation as text, None where the template refuses it."""
    from jinja2 import TemplateError, TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    tokens = read_settings(files.folder / "tokenizer_config.json")
    named = {
        name: tokens[name] for name in ("bos_token", "eos_token", "pad_token") if isinstance(tokens.get(name), str)
    }
    try:
        return environment.from_string(source).render(messages=messages, add_generation_prompt=False, **named)
    except TemplateSyntaxError as error:
        raise CheckpointError(f"the chat template in {files.folder} is not Jinja: {error}") from error
    except (TemplateError, TypeError):  # made for other conversations
        return None


def _split(text: str | None, places: Sequence[str]) -> list[str] | None:
    """Return what stands between the places, None unless each occurs once and in order."""
    parts = []
    for place in places:
        if text is None or text.count(place) != 1:
            return None
        part, _, text = text.partition(place)
        parts.append(part)
    return None if text is None else [*parts, text]
