"""What the doors call takes keywords only, so that two ids are never mixed up."""

import inspect

import pytest

from tenants import operations, queries

FUNCTIONS = [
    function
    for module, names in ((operations, operations.__all__), (queries, dir(queries)))
    for name in names
    if inspect.isfunction(function := getattr(module, name))
    and function.__module__.startswith(module.__name__)
    and not name.startswith("_")
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__qualname__)
def test_operations_and_queries_take_keywords_only(function: object) -> None:
    assert callable(function)
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    assert kinds <= {inspect.Parameter.KEYWORD_ONLY}


def test_there_are_some() -> None:
    assert len(FUNCTIONS) > 25
