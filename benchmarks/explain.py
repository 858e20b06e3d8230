"""
Benchmarks of explaining: evidence and explanation of an alert, a casebook of a million cases, and the quality of its neighbours.

Run ``python -m benchmarks.explain [evidence] [casebook] [retrieval]``; without a name all parts run. Timed work uses one core.
"""

import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score

from benchmarks.setting import WORKER_CORE, trained_world
from core.messages import Claim, Fact, Form, Subject, decode_alert
from core.privacy.masking import Privacy
from explain.casebook import Casebook, CasesInMemory, bundle_cases
from explain.claims import TEMPLATE, NarrativeSubject, answer_of, check, parse, template_claims
from explain.explainer import Explainer
from explain.facts.kinds import entity_of, kind_of, value_of, window_of
from explain.vectors import FaissCases
from explain.words import ENGLISH, LANGUAGES, writer
from models.attribution import contributions
from models.bundles.bundle import load_bundle
from models.features.spec import Entity, Feature, default_spec, op_of
from training.data.mapping import load_mapping
from training.data.readers import TransactionFile
from training.progress import NoProgress
from training.replay import replay
from training.train import Recipe, fit_booster, load_history

QUIET = NoProgress()
CASES, QUERIES = 1_000_000, 1_000
DAY = 86_400_000
Matrix = npt.NDArray[np.float32]


def shown(name: str, seconds: list[float]) -> None:
    ms = np.array(seconds) * 1000
    print(f"{name:<52} p50 {np.median(ms):6.2f} ms   p99 {np.quantile(ms, 0.99):6.2f} ms")


def timed(work: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def processor_time(work: Callable[..., object], *arguments: object) -> float:
    began = time.thread_time()
    work(*arguments)
    return time.thread_time() - began


def evidence(folder: Path) -> None:
    bundle = load_bundle(folder / "bundle")
    source = TransactionFile(folder / "transactions.parquet", load_mapping("whyflag"))
    out = folder / "replayed"
    replay(source, bundle, labels=folder / "labels.parquet", out=out, form="jsonl", privacy=Privacy(), progress=lambda n: None)
    alerts = [decode_alert(line) for line in (out / "alerts.jsonl").read_bytes().splitlines()][-2_000:]
    explainer = Explainer(bundle, Casebook(bundle, CasesInMemory(bundle_cases(bundle))))
    for alert in alerts[:50]:
        explainer.explain(alert)
    print(f"{len(alerts):,} alerts, {len(bundle.spec.feature_names)} features, {len(explainer.casebook):,} cases in memory")
    explanations = [explainer.explain(alert) for alert in alerts]
    shown("facts, similar cases, template narrative", [timed(explainer.explain, alert) for alert in alerts])
    shown("  the same, processor time", [processor_time(explainer.explain, alert) for alert in alerts])
    subjects = [NarrativeSubject(one.facts, one.themes) for one in explanations]
    answers = [answer_of(template_claims(one)) for one in subjects]
    checks = [timed(lambda a, s: check(parse(a), s, TEMPLATE), *one) for one in zip(answers, subjects, strict=True)]
    shown("reading and checking an answer", checks)
    for language in LANGUAGES:
        shown(f"writing a narrative, {language}", [timed(_written, one.narrative, one.facts, language) for one in explanations])


def _written(claims: tuple[Claim, ...], facts: tuple[Fact, ...], language: str) -> list[str]:
    known = {fact.fact_id: fact for fact in facts}
    return [writer(language).claim(claim, known) for claim in claims]


def casebook(folder: Path) -> None:
    """Measure a million vectors: real ones of simulated transactions, and noisy mixtures of two real ones."""
    bundle = load_bundle(folder / "bundle")
    history = load_history(
        TransactionFile(folder / "transactions.parquet", load_mapping("whyflag")),
        bundle.spec, folder / "labels.parquet", 5 * DAY, Privacy(), QUIET,
    )  # fmt: skip
    risky = np.argsort(-bundle.booster.inplace_predict(history.X, predict_type="margin", validate_features=False))[:60_000]
    rng = np.random.default_rng(5)
    X = history.X[rng.permutation(risky)]
    shap = np.concatenate([contributions(bundle.booster, X[at : at + 5_000])[0] for at in range(0, len(X), 5_000)])
    own = Casebook(bundle, CasesInMemory()).vectors(X, shap)
    asked, real = own[:QUERIES], own[QUERIES:]
    made = np.empty((CASES, own.shape[1]), np.float32)
    made[: len(real)] = real
    for at in range(len(real), CASES, 50_000):
        size = min(50_000, CASES - at)
        one, other = real[rng.integers(len(real), size=size)], real[rng.integers(len(real), size=size)]
        share = rng.uniform(0, 0.35, size=(size, 1)).astype(np.float32)
        mixed = (1 - share) * one + share * other + 0.02 * rng.normal(size=one.shape).astype(np.float32)
        made[at : at + size] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    closed = rng.integers(1, 1_000, CASES)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for count in (50_000, CASES):
        store = FaissCases("bench", own.shape[1], folder / f"index-{count}")
        built = timed(_fill, store, made[:count], closed[:count])
        faiss.omp_set_num_threads(1)
        exact = (
            np.argsort(-(asked[:300] @ made[:count].T), axis=1, kind="stable")[:, :10]
            if count <= 50_000
            else _exact(asked[:300], made[:count])
        )
        found = [store.nearest(vector, 10)[0] for vector in asked[:300]]
        recall = np.mean([len(set(f) & set((e + 1).tolist())) / 10 for f, e in zip(found, exact, strict=True)])
        print(f"{count:,} cases: built in {built:.0f} s, recall@10 {recall:.4f} against exact search")
        shown("  ten nearest", [timed(store.nearest, vector, 10) for vector in asked])
        shown("  ten nearest, half of the cases closed too late", [timed(store.nearest, vector, 10, 500) for vector in asked])
        numbers = rng.integers(1, count, 500).tolist()
        shown("  replace one", [timed(store.put, [n], [1], made[n - 1][None, :], 1) for n in numbers])
        kept = timed(store.save)
        size = sum(file.stat().st_size for file in (folder / f"index-{count}").iterdir())
        again = FaissCases("bench", own.shape[1], folder / f"index-{count}")
        print(f"  {size / 2**20:.0f} MiB on disk, saved in {kept:.1f} s, read and checked in {timed(again.load):.1f} s")
        faiss.omp_set_num_threads(os.cpu_count() or 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory of the process grew by {(peak - before) / 2**10:.0f} MiB, without the input vectors")


def _fill(store: FaissCases, vectors: Matrix, closed: npt.NDArray[np.int64]) -> None:
    for at in range(0, len(vectors), 50_000):
        end = min(at + 50_000, len(vectors))
        store.put(list(range(at + 1, end + 1)), closed[at:end].tolist(), vectors[at:end], end)


def _exact(asked: Matrix, made: Matrix) -> npt.NDArray[np.int64]:
    flat = faiss.IndexFlatIP(made.shape[1])
    flat.add(made)
    found: npt.NDArray[np.int64] = flat.search(asked, 10)[1]
    return found


def retrieval(folder: Path) -> None:
    """
    Measure the neighbours of frauds whose typology the model never saw, among the cases of the weeks before.

    Precision at 5 is the share of the five nearest cases that have the query's typology. The AUC measures how well the share of
    frauds among the five nearest cases separates frauds of that typology from honest transactions.
    """
    spec = default_spec("EUR")
    history = load_history(
        TransactionFile(folder / "transactions.parquet", load_mapping("whyflag")),
        spec,
        folder / "labels.parquet",
        5 * DAY,
        Privacy(),
        QUIET,
    )
    truth = pq.read_table(folder / "truth.parquet").to_pydict()
    by_id = dict(zip(truth["transaction_id"], truth["typology"], strict=True))
    ids = pq.read_table(folder / "transactions.parquet", columns=["transaction_id"])["transaction_id"].to_pylist()
    kind = np.array([by_id[one] for one in ids])
    at = history.dataset.columns.event_time
    train = history.split.train(at) & history.usable
    rng = np.random.default_rng(3)
    print(f"{'typology withheld from training':<34}{'precision at 5':>32}{'AUC of neighbours fraud share':>34}")
    print(f"{'':<34}{'features+SHAP':>16}{'text':>8}{'chance':>8}{'features+SHAP':>20}{'text':>8}")
    for typology in sorted(set(kind) - {"honest"}):
        rows = np.flatnonzero(train & (kind != typology))
        y = kind[rows] != "honest"
        booster = fit_booster(history.X[rows], y, spec, Recipe(), 1, QUIET)
        later = np.flatnonzero(~history.split.train(at) & history.usable)
        frauds = later[kind[later] != "honest"]
        honest = rng.choice(later[kind[later] == "honest"], 4_000, replace=False)
        chosen = np.sort(np.concatenate([frauds, honest]))
        X = history.X[chosen]
        shap = np.concatenate([contributions(booster, X[a : a + 2_000])[0] for a in range(0, len(X), 2_000)])
        reference = SimpleNamespace(mean=np.nanmean(history.X[rows], axis=0), std=np.nanstd(history.X[rows], axis=0) + 1e-6)
        book = Casebook(SimpleNamespace(version="bench", spec=spec, reference=reference), CasesInMemory())  # type: ignore[arg-type]
        vectors = book.vectors(X, shap)
        texts = _text_vectors(spec, X)
        half = at[chosen] < np.median(at[frauds])
        scores = {name: _quality(made, half, kind[chosen], typology) for name, made in (("own", vectors), ("text", texts))}
        if scores["own"] is None:
            continue
        (precision, auc), (text_precision, text_auc) = scores["own"], scores["text"]
        chance = float((kind[chosen][half] == typology).mean())
        print(f"{typology:<34}{precision:>16.3f}{text_precision:>8.3f}{chance:>8.3f}{auc:>20.3f}{text_auc:>8.3f}")


def _quality(
    vectors: Matrix, half: npt.NDArray[np.bool_], kind: npt.NDArray[np.str_], typology: str
) -> tuple[float, float] | None:
    cases, queries = np.flatnonzero(half), np.flatnonzero(~half & np.isin(kind, (typology, "honest")))
    if (kind[cases] == typology).sum() < 20 or (kind[queries] == typology).sum() < 20:
        return None
    near = np.argsort(-(vectors[queries] @ vectors[cases].T), axis=1, kind="stable")[:, :5]
    found = kind[cases][near]
    own = kind[queries] == typology
    precision = float((found[own] == typology).mean())
    return precision, float(roc_auc_score(own, (found != "honest").mean(axis=1)))


def _text_vectors(spec: object, X: Matrix) -> Matrix:
    """Write each row as the catalogue's sentences and embed them by latent semantic analysis: no language model is available."""
    told = [entity_of(spec, name) for name in spec.feature_names]  # type: ignore[arg-type, attr-defined]
    english = writer(ENGLISH)

    def words(entity: Entity, feature: Feature, value: float) -> str:
        values = {"value": value_of(feature, value, "EUR"), **window_of(feature, entity)}
        return english.fact(Fact("F1", kind_of(op_of(feature)), Subject.CARD, values), Form.CLAUSE)

    rows = [" ".join(words(e, f, float(v)) for (e, f), v in zip(told, row, strict=True) if not np.isnan(v)) for row in X]
    terms = TfidfVectorizer(ngram_range=(1, 2), min_df=3, sublinear_tf=True).fit_transform(rows)
    made = TruncatedSVD(128, random_state=1).fit_transform(terms).astype(np.float32)
    return made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-9)


def main() -> None:
    parts = {"evidence": evidence, "casebook": casebook, "retrieval": retrieval}
    wanted = sys.argv[1:] or list(parts)
    if unknown := [name for name in wanted if name not in parts]:
        sys.exit(f"unknown part {unknown[0]}: choose from {', '.join(parts)}")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="whyflag-bench-") as name:
        folder = Path(name)
        trained_world(folder, 200_000)
        os.sched_setaffinity(0, {WORKER_CORE})
        for part in wanted:
            print(f"\n{part}")
            if part != "evidence":
                os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))
            parts[part](folder)


if __name__ == "__main__":
    main()
