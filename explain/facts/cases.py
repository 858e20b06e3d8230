"""Facts of similar closed cases: their outcomes, the themes they share with the alert, and any contradiction of its score."""

from collections.abc import Sequence
from typing import Final

from core.messages import Fact, Finding, LikelyTypology, Side, SimilarCase, Subject, Unit, Value
from explain.facts.values import code, count, instant, share

_CONTRADICTS: Final = 0.5  # the cases contradict a score if their fraud share differs from its probability by at least this


def case_facts(
    cases: Sequence[SimilarCase] | None, probability: float | None, typology: LikelyTypology | None
) -> tuple[Fact, ...]:
    """
    Return facts about all cases (``C1``), a contradiction of the score (``C2``), the likely typology (``Y1``) and each case
    (``K1`` …).

    ``cases`` is None if no search was made.
    """
    if cases is None:
        return (Fact("C1", "cases-not-searched", Subject.CASES, {}),)
    if not cases:
        return (Fact("C1", "cases-none", Subject.CASES, {}),)
    frauds = sum(case.outcome is Finding.FRAUD for case in cases)
    values = {"cases": count(len(cases)), "frauds": count(frauds), "legitimate": count(len(cases) - frauds)}
    side = Side.FRAUD if 2 * frauds > len(cases) else Side.LEGITIMATE if 2 * frauds < len(cases) else Side.NEITHER
    facts = [Fact("C1", "cases", Subject.CASES, values, side)]
    if probability is not None and abs(frauds / len(cases) - probability) >= _CONTRADICTS:
        against = {"probability": share(probability), "frauds": count(frauds), "cases": count(len(cases))}
        facts.append(Fact("C2", "cases-contradict", Subject.CASES, against, side))
    if typology is not None:
        facts.append(_typology(typology))
    facts += [_case(f"K{number}", case) for number, case in enumerate(cases, start=1)]
    return tuple(facts)


def _typology(typology: LikelyTypology) -> Fact:
    values = {"typology": code(typology.name), "cases": count(typology.cases)}
    if typology.probability is None or typology.right is None:
        return Fact("Y1", "typology", Subject.CASES, values | {"support": count(typology.support)})
    fitted = {"probability": share(typology.probability), "right": share(typology.right)}
    return Fact("Y1", "typology-fitted", Subject.CASES, values | fitted)


def _case(fact_id: str, case: SimilarCase) -> Fact:
    values = {
        "outcome": code(case.outcome),
        "closed": instant(case.closed_time),
        "similarity": Value(Unit.SHARE, max(0.0, min(1.0, case.similarity))),
    }
    side = Side.FRAUD if case.outcome is Finding.FRAUD else Side.LEGITIMATE
    if not case.shared:
        return Fact(fact_id, "case", Subject.CASES, values, side)
    return Fact(fact_id, "case-shared", Subject.CASES, values | {"theme": code(f"theme-{case.shared[0]}")}, side)
