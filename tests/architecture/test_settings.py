"""The environment is validated: typos and contradictions stop the start."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from portal.settings.environment import TUNABLES, Environment, database_config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"SLUICE_LEES_S": "5"}, "Unknown setting: SLUICE_LEES_S"),
        ({"SLUICE_LEASE_S": "soon"}, "whole number"),
        ({"SLUICE_LEASE_S": "3"}, "from 4 to 600"),
        ({"SLUICE_LEASE_S": "4", "SLUICE_CHECKPOINT_S": "2"}, "at least 3 × SLUICE_CHECKPOINT_S"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(values: dict[str, str], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        Environment(values).tunables()


def test_every_default_is_within_its_own_range() -> None:
    assert Environment({}).tunables() == {name: default for name, (default, _, _) in TUNABLES.items()}


def test_a_database_of_another_kind_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="postgresql://"):
        database_config("mysql://root@localhost/x", role=None, application="test")
