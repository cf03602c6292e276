"""Code samples of one call, ready to be copied: the one place where pages take them from."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Final

QUESTION: Final = "Hello"


@dataclass(frozen=True, slots=True)
class Sample:
    """One call in one language. name: curl, python or javascript; label: what people call it."""

    name: str
    label: str
    text: str


def call_samples(*, api_base: str, slug: str, key: str | None = None) -> tuple[Sample, ...]:
    """The same call to a model with curl, Python and JavaScript.

    key: the secret, written into the samples; without one they read it from the environment's API_KEY.
    """
    return (
        Sample("curl", "curl", _curl(api_base, slug, key)),
        Sample("python", "Python", _python(api_base, slug, key)),
        Sample("javascript", "JavaScript", _javascript(api_base, slug, key)),
    )


def _curl(api_base: str, slug: str, key: str | None) -> str:
    body = json.dumps(
        {"model": slug, "messages": [{"role": "user", "content": QUESTION}]}, ensure_ascii=False
    )
    return "\n".join(
        (
            f"curl {shlex.quote(f'{api_base}/chat/completions')} \\",
            # In double quotes, so that the shell fills in what is written as a variable.
            f'  -H "Authorization: Bearer {key or "$API_KEY"}" \\',
            '  -H "Content-Type: application/json" \\',
            f"  -d {shlex.quote(body)}",
        )
    )


def _python(api_base: str, slug: str, key: str | None) -> str:
    # What JSON writes for a text is a text in Python and in JavaScript as well.
    lines = [] if key else ["import os", ""]
    secret = json.dumps(key) if key else 'os.environ["API_KEY"]'
    return "\n".join(
        (
            *lines,
            "from openai import OpenAI",
            "",
            "client = OpenAI(",
            f"    base_url={json.dumps(api_base)},",
            f"    api_key={secret},",
            ")",
            "answer = client.chat.completions.create(",
            f"    model={json.dumps(slug)},",
            f'    messages=[{{"role": "user", "content": {json.dumps(QUESTION)}}}],',
            ")",
            "print(answer.choices[0].message.content)",
        )
    )


def _javascript(api_base: str, slug: str, key: str | None) -> str:
    secret = json.dumps(key) if key else "process.env.API_KEY"
    return "\n".join(
        (
            'import OpenAI from "openai";',
            "",
            "const client = new OpenAI({",
            f"  baseURL: {json.dumps(api_base)},",
            f"  apiKey: {secret},",
            "});",
            "const answer = await client.chat.completions.create({",
            f"  model: {json.dumps(slug)},",
            f'  messages: [{{ role: "user", content: {json.dumps(QUESTION)} }}],',
            "});",
            "console.log(answer.choices[0].message.content);",
        )
    )
