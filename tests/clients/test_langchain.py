"""LangChain over the gateway: chats, streams, tools, answers of a type, embeddings, and Claude's form."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from devstack.engines.testing import sim
from tests.clients.simulated import Scene


class Joke(BaseModel):
    """A joke to tell."""

    setup: str
    punchline: str


@tool
def multiply(first: int, second: int) -> int:
    """Multiplies two numbers."""
    return first * second


@pytest.fixture(autouse=True)
def _untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine's environment says, nothing is reported to anybody."""
    monkeypatch.setenv("LANGSMITH_TRACING", "false")


@pytest.fixture
def chat(scene: Scene) -> ChatOpenAI:
    return ChatOpenAI(
        model=scene.model.slug, base_url=scene.gateway.api_base, api_key=SecretStr(scene.token), max_retries=0
    )


@pytest.fixture
def claude(scene: Scene) -> ChatAnthropic:
    options: dict[str, Any] = {"base_url": scene.gateway.url, "api_key": scene.token, "max_tokens": 200}
    return ChatAnthropic(model_name=scene.model.slug, max_retries=0, **options)


def test_invoke_and_stream(chat: ChatOpenAI, scene: Scene) -> None:
    question = [("system", "Be brief."), ("human", sim(tokens=3))]
    answer = chat.invoke(question)
    assert answer.content == "w1 w2 w3"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 3
    pieces = list(chat.stream(question))
    assert "".join(str(piece.content) for piece in pieces) == "w1 w2 w3"
    scene.settled(2)


def test_tools(chat: ChatOpenAI, scene: Scene) -> None:
    helpful = chat.bind_tools([multiply])
    messages: list[Any] = [HumanMessage("What is 3 * 12? " + sim(tools=1))]
    answer = helpful.invoke(messages)
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("multiply", {"first": 1, "second": 1})
    result = multiply.invoke(call)
    assert isinstance(result, ToolMessage)
    assert helpful.invoke([*messages, answer, result]).content
    streamed: Any = None
    for chunk in helpful.stream(messages):
        streamed = chunk if streamed is None else streamed + chunk
    assert streamed is not None
    assert streamed.tool_calls[0]["args"] == call["args"]
    scene.settled(3)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_an_answer_of_a_type(chat: ChatOpenAI, scene: Scene, method: Any) -> None:
    joke = chat.with_structured_output(Joke, method=method).invoke("Tell me a joke about cats")
    assert joke == Joke(setup="setup", punchline="punchline")
    scene.settled(1)


def test_embeddings(scene: Scene) -> None:
    # Its own tokenizer knows OpenAI's models only; servers of other models are sent text, as it documents.
    embeddings = OpenAIEmbeddings(
        model=scene.model.slug,
        base_url=scene.gateway.api_base,
        api_key=SecretStr(scene.token),
        check_embedding_ctx_length=False,
        max_retries=0,
    )
    one = embeddings.embed_query("the meaning of life")
    several = embeddings.embed_documents(["the meaning of life", "something else"])
    assert several[0] == pytest.approx(one)
    assert several[1] != several[0]
    scene.settled(2)


def test_responses(scene: Scene) -> None:
    chat = ChatOpenAI(
        model=scene.model.slug,
        base_url=scene.gateway.api_base,
        api_key=SecretStr(scene.token),
        use_responses_api=True,
        max_retries=0,
    )
    assert chat.invoke(sim(tokens=3)).text == "w1 w2 w3"
    assert "".join(str(piece.text) for piece in chat.stream(sim(tokens=3))) == "w1 w2 w3"
    scene.settled(2)


async def test_asynchronously(chat: ChatOpenAI, scene: Scene) -> None:
    answers = await chat.abatch([sim(tokens=2), sim(tokens=3)])
    assert [answer.content for answer in answers] == ["w1 w2", "w1 w2 w3"]


def test_claude(claude: ChatAnthropic, scene: Scene) -> None:
    assert claude.invoke(sim(tokens=3)).content == "w1 w2 w3"
    assert "".join(str(piece.text) for piece in claude.stream(sim(tokens=3))) == "w1 w2 w3"
    answer = claude.bind_tools([multiply]).invoke("What is 3 * 12? " + sim(tools=1))
    assert [call["name"] for call in answer.tool_calls] == ["multiply"]
    scene.settled(3)
