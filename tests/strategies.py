"""Hypothesis strategies for messages."""

import string

from hypothesis import settings
from hypothesis import strategies as st

from core import messages as m
from tests.conftest import GIVEN

SCALE = float(GIVEN.get("WHYFLAG_TEST_EXAMPLES", "1"))  # `make check` tries a tenth of the examples


def scaled(count: int) -> int:
    return max(5, round(count * SCALE))


def examples(count: int, **options):
    """A property test with this many examples and no deadline: these machines are shared."""
    return settings(max_examples=scaled(count), deadline=None, **options)


identifiers = st.text(string.ascii_letters + string.digits + "-_.:/", min_size=1, max_size=24)
times = st.integers(m.EARLIEST, m.LATEST)
amounts = st.integers(0, 10**13)
currencies = st.sampled_from(["EUR", "USD", "JPY"])
texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=40)
maybe = st.none

transactions = st.builds(
    m.Transaction,
    transaction_id=identifiers,
    event_time=times,
    card_id=identifiers,
    merchant_id=identifiers,
    amount=amounts,
    currency=currencies,
    mcc=maybe() | st.from_regex("[0-9]{4}", fullmatch=True),
    merchant_name=maybe() | texts,
    country=maybe() | st.from_regex("[A-Z]{2}", fullmatch=True),
    channel=maybe() | st.sampled_from(m.Channel),
    device_id=maybe() | identifiers,
    ip=maybe() | st.ip_addresses().map(str),
    lat=maybe() | st.floats(-90, 90),
    lon=maybe() | st.floats(-180, 180),
    memo=maybe() | texts,
)
labels = st.builds(
    m.Label,
    transaction_id=identifiers,
    card_id=identifiers,
    merchant_id=identifiers,
    event_time=times,
    label_time=times,
    fraud=st.booleans(),
    source=st.sampled_from(m.LabelSource),
)
decisions = st.builds(
    m.Decision,
    transaction_id=identifiers,
    card_id=identifiers,
    merchant_id=identifiers,
    event_time=times,
    amount=amounts,
    currency=currencies,
    outcome=st.sampled_from(m.Outcome),
    probability=maybe() | st.floats(0, 1),
    bundle=identifiers,
    reason_codes=st.lists(identifiers, max_size=3).map(tuple),
    expected_loss=st.integers(0, 10**13),
    novelty=maybe() | st.floats(0, 1),
)
recents = st.builds(
    m.RecentTransaction,
    event_time=times,
    amount=maybe() | amounts,
    mcc=maybe() | st.from_regex("[0-9]{4}", fullmatch=True),
    country=maybe() | st.from_regex("[A-Z]{2}", fullmatch=True),
    channel=maybe() | st.sampled_from(m.Channel),
    same_merchant=st.booleans(),
)
alerts = st.builds(
    m.Alert,
    alert_id=identifiers,
    transaction=transactions,
    decision=decisions,
    features=st.dictionaries(identifiers, maybe() | st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    spec=identifiers,
    recent=st.lists(recents, max_size=3).map(tuple),
)
values = st.builds(
    m.Value,
    unit=st.sampled_from(m.Unit),
    number=maybe() | st.floats(-1e12, 1e12),
    text=texts,
    currency=st.sampled_from(["", "EUR", "JPY"]),
)
shares = st.floats(0, 1)
facts = st.builds(
    m.Fact,
    fact_id=identifiers,
    kind=identifiers,
    subject=st.sampled_from(m.Subject),
    values=st.dictionaries(identifiers, values, max_size=3),
    side=st.sampled_from(m.Side),
    usual=maybe() | values,
    contrast=maybe() | st.builds(m.Contrast, high=st.booleans(), honest_share=shares, fraud_share=shares),
    contribution=maybe() | st.floats(-10, 10),
)
claims = st.builds(
    m.Claim,
    part=st.sampled_from(m.Part),
    mentions=st.lists(st.builds(m.Mention, fact_id=identifiers, form=st.sampled_from(m.Form)), max_size=3).map(tuple),
    opening=st.sampled_from(m.Opening),
    joiner=st.sampled_from(m.Joiner),
    written_by=identifiers,
)
explanations = st.builds(
    m.Explanation,
    alert_id=identifiers,
    transaction_id=identifiers,
    facts=st.lists(facts, max_size=3).map(tuple),
    reasons=st.lists(identifiers, max_size=3).map(tuple),
    similar_cases=st.lists(
        st.builds(
            m.SimilarCase,
            case_id=identifiers,
            outcome=st.sampled_from(m.Finding),
            closed_time=times,
            similarity=st.floats(-1, 1),
            differences=st.lists(
                st.builds(m.Difference, feature=identifiers, kind=identifiers, there=values, here=values), max_size=2
            ).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
    narrative=st.lists(claims, max_size=2).map(tuple),
    verification=st.builds(m.Verification, checked=st.integers(0, 9), replaced=st.integers(0, 9)),
    bundle=identifiers,
    narrator=identifiers,
    prompt=identifiers,
    index=identifiers,
    start=maybe() | st.floats(-10, 10),
)
verdicts = st.builds(
    m.Verdict,
    alert_id=identifiers,
    transaction_id=identifiers,
    card_id=identifiers,
    merchant_id=identifiers,
    event_time=times,
    verdict_time=times,
    finding=st.sampled_from(m.Finding),
    analyst=identifiers,
    typology=maybe() | identifiers,
    note=maybe() | texts,
)
dead_letters = st.builds(
    m.DeadLetter,
    topic=identifiers,
    partition=st.integers(0, 9),
    offset=st.integers(0, 2**53),
    stage=identifiers,
    error=identifiers,
    message=texts,
    raw=st.binary(max_size=60),
)
every_message = st.one_of(
    transactions, labels, decisions, alerts, explanations, verdicts, dead_letters
)  # fmt: skip
