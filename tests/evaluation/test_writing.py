"""Evaluations as files and tables: every number is there, and what is no number is not written as one."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest
from rich.console import Console

from expander_sae import ExpanderError
from expander_sae.evaluation import Evaluation, Interval, Kind, LanguageModelLoss
from expander_sae.evaluation.tables import as_csv, as_json, as_table, check_writable, notes, write

NAN = float("nan")


def estimate(value, width=0.01):
    return Interval(value, value - width, value + width, Kind.DOCUMENTS)


def evaluation(name="uniform-d7-n4608-topk16", *, retention=None, undefined=False, loss=True, **changes):
    ablated = Interval(NAN, NAN, NAN, Kind.DOCUMENTS) if undefined else estimate(0.81)
    language_model = LanguageModelLoss(
        clean=estimate(3.1), patched=estimate(3.45), zero=estimate(12.5), mean=estimate(9.75), kl=estimate(0.62),
        recovered_zero=estimate(0.93), recovered_mean=ablated, retention_zero=retention, retention_mean=retention,
    )  # fmt: skip
    fields = {
        "name": name, "coder": "topk:16", "tokens": 50_000, "documents": 321,
        "passed_through": {"special": 12, "massive": 230}, "fvu": estimate(0.4), "explained_variance": estimate(0.6),
        "cosine": estimate(0.77), "l0": estimate(16.0, 0), "never_fired": 0.125, "density": [0] * 20 + [3, 4, 5, 6],
        "learned_values": 37_440, "language_model": language_model if loss else None,
        "setting": {
            "model": "smollm2", "hookpoint": "layers.12", "text": "python", "part": "held-out", "context": 256,
            "bos": False, "held_out": True, "massive_above": 570.5, "massive_from": "training",
        },
    }  # fmt: skip
    return Evaluation(**(fields | changes))


def printed(*evaluations, reference=None):
    found = {each.name: each for each in evaluations}
    console = Console(file=io.StringIO(), width=100)
    console.print(as_table(found))
    for note in notes(found, reference):
        console.print(note)
    return console.file.getvalue()


def test_json_holds_everything():
    content = json.loads(as_json({"a": evaluation("a", undefined=True)}))
    found = content["evaluations"][0]
    assert len(content["density_edges"]) == len(found["density"]) + 1
    assert found["language_model"]["patched"] == {"value": 3.45, "low": 3.45 - 0.01, "high": 3.45 + 0.01}
    assert found["language_model"]["recovered_mean"] == {"value": None, "low": None, "high": None}
    assert found["language_model"]["retention_zero"] is None
    assert found["passed_through"] == {"special": 12, "massive": 230}
    assert found["setting"]["massive_from"] == "training"


def test_csv_is_a_line_each_with_a_column_for_every_number():
    found = {"a": evaluation("a", retention=estimate(0.9)), "b": evaluation("b, with a comma", loss=False)}
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [row["name"] for row in rows] == ["a", "b, with a comma"]
    for column, value in {"fvu": 0.4, "ce_patched": 3.45, "ce_zero_low": 12.49, "recovered_zero": 0.93, "l0": 16,
                          "retention_mean_high": 0.91, "passed_through_massive": 230}.items():  # fmt: skip
        assert float(rows[0][column]) == pytest.approx(value)
    assert rows[0]["setting_hookpoint"] == "layers.12"
    assert rows[1]["ce_patched"] == rows[1]["recovered_zero_low"] == ""
    assert rows[1]["fvu"] == "0.4"
    assert "density" not in rows[0]


def test_files_are_written_by_their_ending(tmp_path):
    found = {"a": evaluation("a")}
    write(found, tmp_path / "a.json")
    write(found, tmp_path / "a.csv")
    assert (tmp_path / "a.json").read_text() == as_json(found)
    assert (tmp_path / "a.csv").read_text() == as_csv(found)
    with pytest.raises(ExpanderError, match=r"must end in \.json or \.csv"):
        check_writable(tmp_path / "a.txt")
    with pytest.raises(ExpanderError, match="does not exist"):
        check_writable(tmp_path / "nowhere" / "a.csv")


def test_the_table_fits_a_hundred_columns_and_says_what_must_be_known():
    text = printed(
        evaluation(retention=estimate(0.95)), evaluation("dense-n4608-topk16", retention=estimate(1.0, 0)),
        reference="dense-n4608-topk16",
    )  # fmt: skip
    first = next(line for line in text.splitlines() if "uniform-d7" in line)
    for number in ("0.400", "12.5%", "16.0", "3.450", "0.930", "0.810", "0.620", "0.950"):
        assert number in first
    flat = " ".join(text.split())
    for part in ("±0.010", "+0.350", "50,000 tokens of 321 documents of python (held-out, context 256, without BOS)",
                 "12 special and 230 massive tokens (norm above 570.5, known from training)",
                 "3.100 as the model is, 12.500 with zeros and 9.750 with the mean",
                 "share of what dense-n4608-topk16 recovers"):  # fmt: skip
        assert part in flat


def test_what_is_not_known_is_not_shown():
    alone = evaluation(undefined=True, fvu=Interval(0.4, NAN, NAN, Kind.DOCUMENTS), documents=1)
    text = " ".join(printed(alone).split())
    assert "Ablation (mean) does not raise the cross-entropy" in text
    assert "No retention: it needs" in text
    assert "retention " not in text.split("─")[0]
    assert "nan" not in text
    assert math.isnan(alone.language_model.recovered_mean.half_width)
    assert "95 %" not in text
    assert "50,000 tokens of 1 document " in text
    without = evaluation(loss=False, setting={}, passed_through={"massive": 3})
    assert "3 massive tokens." in " ".join(printed(without).split())
    seen = evaluation(setting=evaluation().setting | {"held_out": False})
    assert "Careful" in printed(seen)
    assert "Careful" not in printed(evaluation())
