"""Every kind of source, its parts, and one sentence for what cannot be read."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from expander_sae.activations.texts import Document, documents, pinned
from expander_sae.activations.texts.files import fingerprint, in_part
from expander_sae.errors import ExpanderError

COMMIT = "a" * 40
TEXTS = [f"Document number {number} says hello." for number in range(200)]


def _jsonl(path: Path, texts: list[str], column: str) -> Path:
    path.write_text("".join(json.dumps({"id": 1, column: text}) + "\n" for text in texts))
    return path


def _parquet(path: Path, texts: list[Any], column: str) -> Path:
    parquet.write_table(pyarrow.table({"id": list(range(len(texts))), column: texts}), path, row_group_size=7)
    return path


def _dataset(path: Path, texts: list[str], column: str) -> Path:
    datasets.Dataset.from_dict({"id": list(range(len(texts))), column: texts}).save_to_disk(str(path))
    return path


def _dataset_dict(path: Path, texts: list[str], column: str) -> Path:
    splits = {name: datasets.Dataset.from_dict({column: part}) for name, part in (("test", ["no"]), ("train", texts))}
    datasets.DatasetDict(splits).save_to_disk(str(path))
    return path


def _folder_of_texts(path: Path, texts: list[str], _: str) -> Path:
    (path / "sub").mkdir(parents=True)
    for number, text in enumerate(texts):
        (path / "sub" / f"{number:03}.txt").write_text(text)
    (path / "readme.md").write_text("not read")
    (path / ".hidden.txt").write_text("not read")
    return path


Writer = Callable[[Path, list[str], str], Path]
WRITERS: dict[str, Writer] = {
    "rows.jsonl": _jsonl,
    "rows.parquet": _parquet,
    "dataset": _dataset,
    "splits": _dataset_dict,
    "folder": _folder_of_texts,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_gives_all_texts_in_order(name: str, tmp_path: Path) -> None:
    source = WRITERS[name](tmp_path / name, TEXTS, "text")
    found = list(documents(str(source), part="all"))
    assert [document.text for document in found] == TEXTS
    assert len({document.source_id for document in found}) == len(TEXTS)
    assert str(tmp_path) not in found[0].source_id


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "folder"])
def test_columns(name: str, tmp_path: Path) -> None:
    source = str(WRITERS[name](tmp_path / name, TEXTS, "prose"))
    assert [document.text for document in documents(source, part="all", column="prose")] == TEXTS
    with pytest.raises(ExpanderError, match=r"no column 'text' in .*; its columns are .*prose"):
        list(documents(source))


def test_parts_are_disjoint_and_complete(tmp_path: Path) -> None:
    source = str(_jsonl(tmp_path / "rows.jsonl", TEXTS, "text"))
    train, held_out = (list(documents(source, part=part)) for part in ("train", "held-out"))  # type: ignore[arg-type]
    assert 2 <= len(held_out) <= 25
    assert sorted([*train, *held_out], key=lambda document: TEXTS.index(document.text)) == list(
        documents(source, part="all")
    )


@given(st.text(max_size=30))
@settings(deadline=None, max_examples=100)
def test_the_part_of_a_text_ignores_case_and_spacing(text: str) -> None:
    assert in_part(text, "train") != in_part(text, "held-out")
    assert in_part(text, "all")
    assert fingerprint(f"  {text.casefold()}\n!") == fingerprint(text)


def test_the_held_out_part_is_frozen() -> None:
    """A change of the rule would leak held-out texts of earlier runs into training."""
    assert [text for text in TEXTS[:60] if in_part(text, "held-out")] == [
        f"Document number {number} says hello." for number in (2, 16, 21, 22)
    ]


def test_long_text_files_are_cut_at_blank_lines(tmp_path: Path) -> None:
    paragraph = "A line of a book, one of many.\n" * 20 + "\n"
    (tmp_path / "book.txt").write_text("\ufeff" + paragraph * 100, encoding="utf-8")
    found = list(documents(str(tmp_path / "book.txt"), part="all"))
    assert [document.source_id for document in found[:2]] == ["book.txt:0", "book.txt:1"]
    assert "\n\n".join(document.text for document in found) == (paragraph * 100).strip()
    assert all(8_000 <= len(document.text) < 9_000 for document in found[:-1])


def test_text_files_without_blank_lines_are_cut_at_lines(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("one line of a log\n" * 5_000)
    found = list(documents(str(tmp_path / "log.txt"), part="all"))
    assert "\n".join(document.text for document in found) == ("one line of a log\n" * 5_000).strip()
    assert max(len(document.text) for document in found) < 17_000


def test_blank_and_missing_texts_are_skipped(tmp_path: Path) -> None:
    _parquet(tmp_path / "rows.parquet", ["one", None, " \n", "two"], "text")
    found = list(documents(str(tmp_path / "rows.parquet"), part="all"))
    assert found == [Document("one", "rows.parquet:0"), Document("two", "rows.parquet:3")]


@pytest.mark.parametrize("source", ["./nowhere", "nowhere.txt", "a/b/c", "/nowhere", "~/nowhere", "no such thing", ""])
def test_paths_that_are_not_there(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExpanderError, match=r"There is no file or folder|has no \.txt"):
        documents(source)


def test_refusals_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "text.pdf").write_text("hello")
    with pytest.raises(ExpanderError, match=r"is not a \.txt, \.jsonl, \.parquet file"):
        documents(str(tmp_path / "text.pdf"))
    with pytest.raises(ExpanderError, match=r"has no \.txt"):
        documents(str(tmp_path))
    with pytest.raises(ExpanderError, match="no part 'test'"):
        documents("python", part="test")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("empty.txt", b"", "There is no text in"),
        ("blank.jsonl", b'{"text": " "}\n', "There is no text in"),
        ("bad.jsonl", b'{"text": "x"}\n\n{"text": "y"\n', "Line 3 of .* is not JSON"),
        (
            "half.jsonl",
            b'{"text": "a \\ud800 b"}\n',
            r"in line 1 of .* holds .\\ud800., which is no character",
        ),
        ("list.jsonl", b"[1]\n", "Line 1 of .* is not a JSON object"),
        ("number.jsonl", b'{"text": "x"}\n{"text": 5}\n', "not text in line 2 of .*, it is int"),
        ("latin.txt", "é".encode("latin-1"), "not UTF-8"),
        ("damaged.parquet", b"PAR1 and then nothing", "not a readable Parquet file"),
    ],
)
def test_content_that_cannot_be_used(name: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExpanderError, match=sentence):
        list(documents(str(tmp_path / name), part="all"))


def test_a_part_without_documents(tmp_path: Path) -> None:
    text = next(text for text in TEXTS if in_part(text, "train"))
    (tmp_path / "one.txt").write_text(text)
    with pytest.raises(ExpanderError, match="None of the 1 documents"):
        list(documents(str(tmp_path / "one.txt"), part="held-out"))


def test_damaged_dataset_folder(tmp_path: Path) -> None:
    folder = _dataset(tmp_path / "dataset", TEXTS, "text")
    next(folder.glob("*.arrow")).write_bytes(b"damaged")
    with pytest.raises(ExpanderError, match="cannot be read"):
        list(documents(str(folder), part="all"))


def test_dataset_without_train_split(tmp_path: Path) -> None:
    splits = {name: datasets.Dataset.from_dict({"text": ["x"]}) for name in ("test", "validation")}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "splits"))
    with pytest.raises(ExpanderError, match="no split 'train', only test, validation"):
        documents(str(tmp_path / "splits"))


class TestHub:
    """The hub itself is played by a function."""

    def test_streams_name_config_and_revision(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Any] = []

        def load(*arguments: Any, streaming: bool, revision: str | None) -> dict[str, Any]:
            asked.append((*arguments, streaming, revision))
            return {"train": datasets.IterableDataset.from_generator(lambda: ({"text": text} for text in TEXTS))}

        monkeypatch.setattr(datasets, "load_dataset", load)
        assert [document.text for document in documents("someone/texts:english@v2", part="all")] == TEXTS
        assert [document.source_id for document in documents("texts", part="all")][1] == "texts:1"
        assert list(documents("texts@refs/convert/parquet", part="all"))
        assert asked == [
            ("someone/texts", "english", True, "v2"),
            ("texts", None, True, None),
            ("texts", None, True, "refs/convert/parquet"),
        ]

    @pytest.mark.parametrize(
        ("name", "asked", "pin"),
        [
            ("someone/texts:english", ("someone/texts", None), f"someone/texts:english@{COMMIT}"),
            ("texts@v2", ("texts", "v2"), f"texts@{COMMIT}"),
            (f"texts@{'b' * 40}", None, f"texts@{'b' * 40}"),
        ],
    )
    def test_a_name_is_pinned_to_the_commit_it_is_at(
        self, name: str, asked: Any, pin: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        requests: list[Any] = []

        def info(path: str, *, revision: str | None) -> Any:
            requests.append((path, revision))
            return SimpleNamespace(sha=COMMIT)

        monkeypatch.setattr(huggingface_hub, "dataset_info", info)
        assert pinned(name) == pin
        assert requests == ([] if asked is None else [asked])

    def test_what_is_not_on_the_hub_has_no_commit(self, tmp_path: Path) -> None:
        (tmp_path / "a@b.txt").write_text("hello")
        for name in ("python", str(tmp_path), str(tmp_path / "a@b.txt")):
            assert pinned(name) == name
        with pytest.raises(ExpanderError, match="There is no file or folder"):
            pinned("./nowhere@main")

    def test_a_network_that_goes_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def rows() -> Any:
            yield {"text": "one"}
            raise ConnectionError("gone")

        stream = datasets.IterableDataset.from_generator(rows)
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: {"train": stream})
        with pytest.raises(ExpanderError, match=r"cannot be read after row \d+ \("):
            list(documents("someone/texts", part="all"))

    def test_no_hub(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def load(*_: Any, **__: Any) -> None:
            raise ConnectionError("no\nway")

        monkeypatch.setattr(datasets, "load_dataset", load)
        with pytest.raises(ExpanderError, match=r"cannot be read from the Hugging Face hub \(no way\)"):
            documents("someone/texts")
        monkeypatch.setattr(huggingface_hub, "dataset_info", load)
        with pytest.raises(ExpanderError, match=r"cannot be read from the Hugging Face hub \(no way\)"):
            pinned("someone/texts")
