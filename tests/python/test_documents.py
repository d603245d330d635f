"""return_documents: what lies where in a batch and where it came from; exclude: all else keeps its place."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import nanofast
from nanofast.documents import PADDING, BatchDocuments, document_names
from resumed import digest, following
from shards import random_texts, write_shards
from stream_twin import Stream

MODES: dict[str, dict[str, str]] = {
    "concat": {"packing": "concat"},
    "carry": {"packing": "best_fit"},
    "crop": {"packing": "best_fit", "overflow": "crop"},
    "pad": {"packing": "best_fit", "overflow": "pad"},
    "one_per_row": {"packing": "one_per_row"},
}


@pytest.fixture(scope="module")
def tokenizer() -> nanofast.Tokenizer:
    return nanofast.Tokenizer.from_name("r50k_base")


@pytest.fixture(scope="module")
def texts() -> list[list[list[str]]]:
    return random_texts(5, [[25, 10], [30]])


@pytest.fixture(scope="module")
def paths(texts: list[list[list[str]]], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_shards(tmp_path_factory.mktemp("shards"), texts)


def document_of(paths: list[str], name: str) -> str:
    file, row_group, row = name.split(":")
    [path] = [path for path in paths if Path(path).name == file]
    return pq.ParquetFile(path).read_row_group(int(row_group), ["text"])["text"][int(row)].as_py()


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_each_piece_is_the_tokens_of_its_document(
    paths: list[str], tokenizer: nanofast.Tokenizer, mode: str, shuffle: bool
) -> None:
    B, T = 2, 24
    with nanofast.TokenLoader(
        paths, tokenizer, B, T, lanes=2, shuffle=shuffle, epochs=1, return_documents=True, **MODES[mode]
    ) as loader:
        num_pieces = 0
        for inputs, targets, documents in loader.numpy():
            assert isinstance(documents, BatchDocuments)
            tokens_BC = np.concatenate([inputs, np.maximum(targets[:, -1:], 0)], axis=1)
            ids = documents.document_ids_BT
            assert ids.shape == documents.positions_BT.shape == inputs.shape
            for number, piece in enumerate(documents.pieces):
                num_pieces += 1
                ids_of = tokenizer.encode(document_of(paths, documents.name(number))).tolist()
                expected = ids_of[piece["first_token"] :][: piece["num_tokens"]]
                expected = [tokenizer.bos_id] * piece["has_bos"] + expected
                row, end = piece["row"], piece["column"] + piece["num_positions"]
                found = tokens_BC[row, piece["column"] : end].tolist()
                assert found == expected[: len(found)]
                assert len(expected) == piece["num_positions"]
                assert (ids[row, piece["column"] : end] == number).all()
            assert ((ids[:, 1:] == PADDING) == (targets[:, :-1] < 0)).all(), "what belongs to no document is padding"
            check_segments(documents, inputs.shape)
        assert num_pieces >= 65


def check_segments(documents: BatchDocuments, shape: tuple[int, int]) -> None:
    B, T = shape
    starts = documents.cu_seqlens[: documents.num_segments + 1]
    assert documents.cu_seqlens.shape == (B * T + 1,)
    assert (documents.cu_seqlens[documents.num_segments :] == B * T).all()
    lengths = np.diff(starts)
    assert (lengths > 0).all()
    assert lengths.max() == documents.max_seqlen
    assert set(range(0, B * T, T)) <= set(starts.tolist()), "no segment crosses a row's end"
    for start, end in itertools.pairwise(starts.tolist()):
        assert documents.positions_BT.ravel()[start:end].tolist() == list(range(end - start))
        assert len(set(documents.document_ids_BT.ravel()[start:end].tolist())) == 1


def test_batches_are_those_without_documents(paths: list[str], tokenizer: nanofast.Tokenizer) -> None:
    torch = pytest.importorskip("torch")
    with (
        nanofast.TokenLoader(paths, tokenizer, 3, 20, lanes=2, return_documents=True) as loader,
        nanofast.TokenLoader(paths, tokenizer, 3, 20, lanes=2, return_documents=True) as arrays,
        nanofast.TokenLoader(paths, tokenizer, 3, 20, lanes=2) as plain,
    ):
        for (inputs, targets, documents), others, expected in itertools.islice(
            zip(loader, arrays.numpy(), plain, strict=True), 30
        ):
            assert torch.equal(inputs, expected[0])
            assert torch.equal(targets, expected[1])
            assert documents.cu_seqlens.dtype == documents.document_ids_BT.dtype == torch.int32
            np.testing.assert_array_equal(documents.document_ids_BT.numpy(), others[2].document_ids_BT)
            np.testing.assert_array_equal(documents.pieces, others[2].pieces)
        state = loader.state_dict()
        expected = [next(loader)[2].pieces for _ in range(5)]
        loader.load_state_dict(state)
        for pieces in expected:
            np.testing.assert_array_equal(next(loader)[2].pieces, pieces)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_what_is_excluded_leaves_all_else_in_its_place(
    paths: list[str],
    texts: list[list[list[str]]],
    tokenizer: nanofast.Tokenizer,
    tmp_path: Path,
    mode: str,
    shuffle: bool,
) -> None:
    documents: Any = [[[tokenizer.encode(text).tolist() for text in rows] for rows in shard] for shard in texts]
    excluded = [(0, 0, 0), (0, 0, 7), (0, 1, 9), (1, 0, 12), (1, 0, 13)]
    for shard, group, row in excluded:
        documents[shard][group][row] = None
    settings: dict[str, Any] = {"batch_size": 2, "sequence_length": 30, "lanes": 2, "shuffle": shuffle, "seed": 2}
    twin = Stream(documents, bos=tokenizer.bos_id, packing=mode, **settings)
    expected = [digest(batch) for batch in itertools.islice(twin.batches(), 40)]
    names = [(Path(paths[shard]).name, group, row) for shard, group, row in excluded]
    listed = tmp_path / "excluded.txt"
    listed.write_text("\n".join(":".join(map(str, name)) for name in names))
    for exclude in (names, [":".join(map(str, name)) for name in names], listed):
        with nanofast.TokenLoader(paths, tokenizer, exclude=exclude, **MODES[mode], **settings) as loader:
            assert following(loader, 40) == expected


def test_a_resume_may_leave_out_more(paths: list[str], tokenizer: nanofast.Tokenizer) -> None:
    settings: dict[str, Any] = {"batch_size": 1, "sequence_length": 40, "lanes": 1, "return_documents": True}
    settings |= {"packing": "concat", "epochs": 1}

    def rest(loader: nanofast.TokenLoader) -> list[str]:
        names = [batch[2].name(n) for batch in loader.numpy() for n in range(len(batch[2].pieces))]
        return [name for name, _ in itertools.groupby(names)]

    with nanofast.TokenLoader(paths, tokenizer, **settings) as loader:
        for _ in range(5):
            last = next(loader.numpy())[2]
        state = loader.state_dict()
        everything = rest(loader)
    held = last.name(len(last.pieces) - 1)
    assert everything[0] == held, "the document of the last token goes on"
    out = {held, everything[2], everything[5], everything[-1]}
    with nanofast.TokenLoader(paths, tokenizer, exclude=sorted(out), **settings) as loader:
        loader.load_state_dict(state)
        assert rest(loader) == [name for name in everything if name == held or name not in out]


def test_names_of_no_document_are_refused(paths: list[str], tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    for exclude, words in [
        (["a.parquet:0:0"], "exclude = `a.parquet`: no shard of the data has this name"),
        (["shard_00000.parquet"], "names no document; expected FILE:ROW_GROUP:ROW"),
        (["a:b:c"], "names no document"),
        (tmp_path / "gone.txt", "exclude: cannot read"),
    ]:
        with pytest.raises(ValueError, match=words) as caught:
            nanofast.TokenLoader(paths, tokenizer, 2, 16, exclude=exclude)
        assert isinstance(caught.value, nanofast.Error)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_example_attends_within_documents_by_mask_and_by_lengths(
    paths: list[str], tokenizer: nanofast.Tokenizer
) -> None:
    torch = pytest.importorskip("torch")
    path = Path(__file__).resolve().parents[2] / "examples" / "document_attention.py"
    spec = importlib.util.spec_from_file_location("document_attention", path)
    assert spec and spec.loader
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    with nanofast.TokenLoader(paths, tokenizer, 2, 64, return_documents=True) as loader:
        _, _, documents = next(loader)
    q, k, v = torch.randn(3, 2, 2, 64, 16, generator=torch.Generator().manual_seed(1)).unbind()
    ids = documents.document_ids_BT
    sees = torch.ones(64, 64).tril().bool() & (ids[:, :, None] == ids[:, None, :])
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=sees[:, None])
    assert documents.num_segments > 2
    for attend in (example.attend_by_mask, example.attend_by_lengths):
        torch.testing.assert_close(attend(q, k, v, documents), expected, rtol=1e-4, atol=1e-5)


def test_a_list_of_what_to_exclude_may_name_files_with_spaces(tmp_path: Path) -> None:
    listed = tmp_path / "excluded.txt"
    listed.write_text("my shard.parquet:0:7\n\n  b.parquet:1:2\n")
    assert document_names(listed) == [("my shard.parquet", 0, 7), ("b.parquet", 1, 2)]
