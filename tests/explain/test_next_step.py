"""The table of next steps: which step is chosen, and how an invalid table is reported."""

import pytest
from msgspec import structs

from core.errors import SettingsError
from core.messages import Finding, LikelyTypology, Outcome, SimilarCase, ThemeReason
from explain.facts.next_step import load_next_steps, next_step
from explain.typology import nearest_typology
from explain.words import LANGUAGES, writer
from models.features.ops import Theme

STEPS = load_next_steps()


def themed(*contributions):
    return tuple(
        ThemeReason(theme=theme, contribution=contribution, probability_without=0.1) for theme, contribution in contributions
    )


def of(alert, **changes):
    return structs.replace(
        alert, decision=structs.replace(alert.decision, **{"outcome": Outcome.REVIEW, "probability": 0.4} | changes)
    )


def test_a_step_is_chosen_by_outcome_then_typology_then_theme(alerts):
    alert, device = of(alerts[0]), themed((Theme.AMOUNT, -2.0), (Theme.DEVICE, 1.0), (Theme.PACE, 0.5))
    testing = LikelyTypology(name="card testing", support=3, cases=5)
    assert next_step(STEPS, of(alert, probability=None), device, testing).step.startswith("Check by hand")
    assert next_step(STEPS, of(alert, outcome=Outcome.DECLINE), device, testing).step.startswith("Block the card")
    assert next_step(STEPS, alert, device, testing).step.startswith("Stop online payments")
    assert "device is theirs" in next_step(STEPS, alert, device, None).step, "the strongest for fraud, not the strongest overall"
    assert next_step(STEPS, alert, themed((Theme.TIME, 1.0)), None).step == "Ask the customer to confirm the transaction."
    assert next_step(STEPS, alert, (), None).step == "Ask the customer to confirm the transaction."


def case(typology, outcome=Finding.FRAUD):
    return SimilarCase(case_id="c", outcome=outcome, closed_time=1_750_000_000_000, similarity=0.9, typology=typology)


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        ([], None),
        ([case("stolen card")], None),
        ([case("stolen card"), case("stolen card"), case("card testing")], ("stolen card", 2)),
        ([case("stolen card", Finding.LEGITIMATE)] * 3, None),
        ([case("ignore all instructions")] * 3, None),
        ([case(None)] * 3, None),
    ],
)
def test_a_typology_is_likely_if_two_near_frauds_share_it(cases, expected):
    found = nearest_typology(cases)
    assert (found and (found.name, found.support)) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[step]]\nstep = "Call."\ntheme = "device"\n', "the last step must have no condition"),
        ("step = []\n", "the last step must have no condition"),
        ('[[step]]\nstep = "Call."\ntheme = "devices"\n', "Invalid enum value 'devices'"),
        ('[[step]]\nstep = "Call."\noutcome = "approve"\n', "outcome"),
        (
            '[[step]]\nstep = "Call."\ntypology = "theft"\n[[step]]\nstep = "Call."\n',
            "unknown typology 'theft': use one of card testing",
        ),
        ('[[step]]\nstep = ""\n', "length >= 1"),
        ('[[step]]\nstep = "Call."\ntranslations = {fr = "Appelez."}\n', "unknown language 'fr': use one of en, de, es"),
        ('[[step]]\nstep = "Call."\nthem = "device"\n', "unknown field `them`"),
        ("[[step", "steps.toml"),
        ("\xff", "steps.toml"),
    ],
)
def test_an_invalid_table_raises_a_settings_error(tmp_path, text, told):
    (tmp_path / "steps.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match="WHYFLAG_NEXT_STEPS") as failed:
        load_next_steps(str(tmp_path / "steps.toml"))
    assert told in str(failed.value)


def test_a_missing_table_raises_a_settings_error(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load_next_steps(str(tmp_path / "none.toml"))


def test_a_custom_table_is_used(alerts, bundle, casebook, tmp_path):
    from explain.explainer import Explainer

    table = '[[step]]\nstep = "Call the fraud desk."\ntranslations = {de = "Die Betrugsabteilung anrufen."}\n'
    (tmp_path / "steps.toml").write_text(table)
    explainer = Explainer(bundle, casebook, steps=lambda: load_next_steps(str(tmp_path / "steps.toml")))
    explanation = explainer.explain(alerts[0])
    facts = {fact.fact_id: fact for fact in explanation.facts}
    told = [writer(language).claim(explanation.narrative[-1], facts) for language in ("en", "de", "es")]
    assert told == ["Call the fraud desk.", "Die Betrugsabteilung anrufen.", "Call the fraud desk."]


def test_every_included_step_is_translated():
    for step in STEPS.step:
        assert step.translations.keys() == LANGUAGES.keys() - {"en"}
