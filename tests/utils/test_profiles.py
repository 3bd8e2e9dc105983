"""What the environment says of a lesson's work and faces."""

import pytest

from agr_utils.errors import InputError
from agr_utils.profiles import get_data_dir, get_data_name, get_profile


@pytest.mark.parametrize("value", [None, ""])
def test_settings_that_are_not_given_or_empty_are_the_usual_ones(monkeypatch: pytest.MonkeyPatch, value: str | None):
    for variable in ("AGR_PROFILE", "AGR_DATA", "AGR_DATA_DIR"):
        if value is not None:
            monkeypatch.setenv(variable, value)
    assert (get_profile().name, get_data_name(), get_data_dir()) == ("quick", "synthetic", None)
    monkeypatch.setenv("AGR_PROFILE", "quik")
    with pytest.raises(InputError, match="AGR_PROFILE is 'quik'. Set it to one of"):
        get_profile()
