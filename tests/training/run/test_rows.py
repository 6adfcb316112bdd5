"""The stages' data: rows that depend on their number alone, one preprocessing path, nothing cut or lost silently."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from univg.errors import UnivgError
from univg.grounding.prompts import SIMPLE_PREFIX, THINK_SUFFIX, render_prompt
from univg.grounding.reading import Asked, read
from univg.grounding.samples import GroundingSample, read_jsonl, write_jsonl
from univg.models.loading import load
from univg.models.pixels import PixelBudget
from univg.models.processor import GroundingProcessor
from univg.training.config import DataSource, GrpoConfig, SftConfig
from univg.training.run.rows import StageRows, count_steps, data_digest, render_prompt_text
from univg.training.sft.stage import IGNORED, encode, join


@pytest.fixture(scope="module")
def processor(start: Path) -> GroundingProcessor:
    return load(start).processor


def config(*sources: DataSource, **settings: Any) -> SftConfig:
    return SftConfig(data=sources or (DataSource(image_px=60),), **settings)


def file(published: Path, name: str = "samples.jsonl", **settings: Any) -> DataSource:
    return DataSource(reader="auto", path=str(published / name), images=str(published), **settings)


def test_a_row_is_the_same_whenever_and_wherever_it_is_taken(processor: GroundingProcessor) -> None:
    one = StageRows(config(), processor, 40)
    first = [one[i] for i in (30, 3)]
    other = StageRows(config(), processor, 10)
    other.resize(40)
    again = [other[i] for i in (30, 3)]
    assert [row.sample for row in first] == [row.sample for row in again]
    assert [[i.tobytes() for i in row.images] for row in first] == [
        [i.tobytes() for i in row.images] for row in again
    ]
    assert one[30].sample != StageRows(config(seed=1), processor, 40)[30].sample


def test_a_file_is_gone_through_before_any_sample_comes_again(
    processor: GroundingProcessor, published: Path
) -> None:
    rows = StageRows(config(file(published)), processor, 24)
    rounds = [[rows[i].sample.key for i in range(at, at + 8)] for at in (0, 8, 16)]
    assert all(len(set(keys)) == 8 for keys in rounds) and len({tuple(keys) for keys in rounds}) == 3


def test_sources_share_by_their_weights(processor: GroundingProcessor, published: Path) -> None:
    mixed = config(DataSource(image_px=32, weight=3), file(published, weight=1))
    rows = StageRows(mixed, processor, 400)
    counts = Counter(source for source, _ in rows._mix())
    assert 260 <= counts[0] <= 340
    places = [rank for source, rank in rows._mix() if source == 1]
    assert places == list(range(len(places))), "a source's samples are numbered without gaps"


def test_only_the_response_is_learnt_and_it_is_the_response(processor: GroundingProcessor) -> None:
    rows = StageRows(config(), processor, 8)
    encoded = [encode(processor, rows[i]) for i in range(8)]
    batch = join(encoded, processor.tokenizer.pad_token_id)
    for i, (ids, labels, mask) in enumerate(
        zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True)
    ):
        learnt = labels != IGNORED
        assert processor.tokenizer.decode(labels[learnt]) == f"{rows[i].response}<|im_end|>"
        assert bool((ids[learnt] == labels[learnt]).all()) and not (learnt & (mask == 0)).any()
        asked = ids[: int(learnt.nonzero()[0])].tolist()
        pictures = rows[i].images
        expected = processor(
            images=[list(pictures)], text=[render_prompt_text(processor, rows[i])], return_tensors="pt"
        )
        assert asked == expected["input_ids"][0].tolist(), "what is asked in evaluation, to the token"
    grids = batch["image_grid_thw"].prod(dim=1) // 4
    assert int((batch["mm_token_type_ids"] == 1).sum()) == int(grids.sum())


def test_a_sample_without_thinking_keeps_its_own_prompt_by_its_field(
    processor: GroundingProcessor, published: Path, tmp_path: Path
) -> None:
    first = next(iter(read_jsonl(published / "samples.jsonl")))
    plain = GroundingSample(first.images[:1], "the dog", "referring", first.boxes, 0, None, thinking=False)
    write_jsonl(tmp_path / "s.jsonl", [plain])
    source = DataSource(reader="univg", path=str(tmp_path / "s.jsonl"), images=str(published))
    row = StageRows(config(source), processor, 1)[0]
    assert row.style == "simple" and row.response is not None and "<think>" not in row.response
    assert row.prompt[0]["content"][-1]["text"] == f"{SIMPLE_PREFIX}the dog"
    assert read(row.response, Asked(style="simple")).formatted


@pytest.mark.parametrize("name", ["stage1_cotsft.json", "stage2_rl.json"])
def test_published_files_teach_what_they_say(
    processor: GroundingProcessor, published: Path, name: str
) -> None:
    rows = StageRows(config(file(published, name)), processor, 8, teach=name.startswith("stage1"))
    world = {sample.images: sample for sample in read_jsonl(published / "samples.jsonl")}
    for i in range(8):
        row = rows[i]
        same = world[row.sample.images]
        assert row.prompt[0]["content"][-1]["text"] == render_prompt(same.query) and THINK_SUFFIX in str(
            row.prompt
        )
        if row.response is None:
            assert row.sample.boxes
        else:
            answer = read(row.response)
            assert answer.formatted and answer.thought == same.thought and answer.box is not None
            assert answer.box == pytest.approx(same.boxes[0], abs=6e-4)


def test_pictures_are_shrunk_to_the_token_budget_and_never_cut(start: Path, published: Path) -> None:
    roomy = load(start, pixel_budget=PixelBudget(28 * 28, 112 * 112)).processor
    free = StageRows(config(file(published)), roomy, 8)
    lengths = [len(encode(roomy, free[i])["ids"]) for i in range(8)]
    limit = max(lengths) - 3
    rows = StageRows(config(file(published), max_tokens=limit), roomy, 8)
    shrunk = 0
    for i in range(8):
        row = rows[i]
        encoded = encode(roomy, row)
        assert len(encoded["ids"]) <= limit
        pads = encoded["ids"].count(roomy.image_token_id)
        assert pads == int((encoded["grids"].prod(dim=1) // 4).sum()), "every image token has its pixels"
        assert row.response == free[i].response
        shrunk += any("pictures shrunk" in note and row.sample.source in note for note in row.notes)
    assert shrunk == sum(length > limit for length in lengths)


def test_what_cannot_be_shrunk_is_left_out_with_its_id(
    processor: GroundingProcessor, published: Path
) -> None:
    free = StageRows(config(file(published)), processor, 8)
    texts = [len(encode(processor, free[i])["ids"]) for i in range(8)]
    rows = StageRows(config(file(published), max_tokens=sorted(texts)[1]), processor, 8)
    notes = [note for i in range(8) for note in rows[i].notes]
    left_out = [note for note in notes if "left out" in note]
    assert left_out and all("max_tokens=" in note and "#" in note for note in left_out)
    with pytest.raises(UnivgError, match=r"20 samples in a row cannot be used.*max_tokens=10"):
        _ = StageRows(config(max_tokens=10), processor, 1)[0]


def test_a_budget_of_rl_leaves_room_for_the_completion(processor: GroundingProcessor) -> None:
    settings = {"data": (DataSource(image_px=60, families=("referring",)),), "max_tokens": 250}
    grpo = GrpoConfig(max_completion_tokens=100, **settings)  # type: ignore[arg-type]
    row = StageRows(grpo, processor, 4, teach=False)[0]
    assert row.response is None
    text = render_prompt_text(processor, row)
    ids = processor(images=[list(row.images)], text=[text], return_tensors="pt")["input_ids"]
    assert ids.shape[1] <= 150


def test_a_picture_that_cannot_be_opened_is_passed_over_with_the_reason(
    processor: GroundingProcessor, published: Path, tmp_path: Path
) -> None:
    samples = list(read_jsonl(published / "samples.jsonl"))
    (tmp_path / "images").mkdir()
    for sample in samples[1:]:
        for name in sample.images:
            (tmp_path / name).write_bytes((published / name).read_bytes())
    write_jsonl(tmp_path / "samples.jsonl", samples)
    rows = StageRows(config(file(tmp_path)), processor, 8)
    notes = [note for i in range(8) for note in rows[i].notes]
    assert len(notes) == 1 and samples[0].source in notes[0] and "no such file" in notes[0]
    assert "check data.0.images" in notes[0]
    (tmp_path / "empty").mkdir()
    nowhere = DataSource(reader="univg", path=str(tmp_path / "samples.jsonl"), images=str(tmp_path / "empty"))
    with pytest.raises(UnivgError, match=r"data\.0\.images: pictures are missing, all .*no such file"):
        StageRows(config(nowhere), processor, 8)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (DataSource(reader="migbench", path="x.json"), "no reader 'migbench': did you mean 'mig_bench'?"),
        (DataSource(reader="auto", path="nothing.json"), "no such file or folder: nothing.json"),
        (DataSource(families=("refering",)), "no task family 'refering': did you mean 'referring'"),
    ],
)
def test_a_source_that_cannot_be_is_refused_in_one_line(
    processor: GroundingProcessor, source: DataSource, said: str
) -> None:
    with pytest.raises(UnivgError, match=said) as error:
        StageRows(config(source), processor, 1)
    assert "\n" not in str(error.value)


def test_answers_without_thoughts_are_not_taught_as_thinking(
    processor: GroundingProcessor, published: Path
) -> None:
    with pytest.raises(UnivgError, match=r"8 of 8 .*it has no thought.*set prompt_style: direct"):
        StageRows(config(file(published, "stage2_rl.json")), processor, 1)
    direct = config(file(published, "stage2_rl.json"), prompt_style="direct")
    row = StageRows(direct, processor, 1)[0]
    assert row.response is not None and row.response.startswith("<|box_start|>")


def lines_of(published: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (published / "samples.jsonl").read_text().splitlines()]


def write_lines(published: Path, folder: Path, lines: list[str]) -> DataSource:
    (folder / "own.jsonl").write_text("\n".join(lines))
    return DataSource(reader="univg", path=str(folder / "own.jsonl"), images=str(published))


def test_records_of_no_use_are_told_with_their_causes(
    processor: GroundingProcessor, published: Path, tmp_path: Path
) -> None:
    rows = lines_of(published)
    rows[2]["thought"], rows[4]["thought"], rows[5]["query"] = None, None, ""
    torn = json.dumps(rows[7])[:40]
    lines = [json.dumps(row) for row in rows[:7]] + [torn]
    source = write_lines(published, tmp_path, lines)
    taught = StageRows(config(source, max_dropped=0.5), processor)
    (dropped,) = taught.dropped
    assert dropped.describe() == [
        f"data: {source.path}: 4 of 8 records left out",
        "  1 bad_field, first univg#line 6: world#train-region-0-5: query: must be text that is not blank, got ''",
        "  1 not_json, first univg#line 8: the file ends in the middle of this line, so more records may be missing",
        "  2 no_thought, first world#train-region-0-2: it has no thought",
    ]
    assert dropped.to_json()["causes"] == {"bad_field": 1, "not_json": 1, "no_thought": 2}
    rewarded = StageRows(config(source, max_dropped=0.5), processor, teach=False)
    assert rewarded.dropped[0].book.counts == {"bad_field": 1, "not_json": 1}


def test_what_is_remarkable_of_a_file_that_is_used_is_told(
    processor: GroundingProcessor, tmp_path: Path
) -> None:
    # 0-1, where a COCO file holds pixels; the last reaches outside, the first is none as x1 y1 x2 y2
    boxes = [[0.6, 0.1, 0.3, 0.3], *([0.1, 0.14, 0.5, 0.5 + k / 10] for k in range(1, 5))]
    picture = "a.png"
    Image.new("RGB", (60, 40)).save(tmp_path / picture)
    file = {
        "images": [{"id": 1, "file_name": picture}],
        "categories": [{"id": k, "name": f"thing {k}"} for k in range(5)],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": k, "bbox": box} for k, box in enumerate(boxes)
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(file))
    source = DataSource(reader="auto", path=str(tmp_path / "coco.json"), images=str(tmp_path))
    (dropped,) = StageRows(config(source, max_dropped=1), processor, teach=False).dropped
    assert dropped.describe() == [
        f"data: {source.path}: boxes are written 0-1, not in pixels (no number of 5 box(es) passes 1.05): read as such",
        f"data: {source.path}: 1 out_of_range in records that are used: see univg data validate",
    ]


def test_a_file_of_which_too_much_is_of_no_use_is_refused(
    processor: GroundingProcessor, published: Path, tmp_path: Path
) -> None:
    rows = lines_of(published)
    one_thought = [json.dumps(row | ({"thought": None} if i else {})) for i, row in enumerate(rows)]
    source = write_lines(published, tmp_path, one_thought)
    with pytest.raises(UnivgError, match=r"7 of 8 records cannot be used \(7 no_thought, first") as refused:
        StageRows(config(source), processor)
    assert str(refused.value).endswith("or go on without them: max_dropped=0.88")
    assert "\n" not in str(refused.value) and source.path in str(refused.value)
    assert StageRows(config(source, max_dropped=0.88), processor).sources[0].data.total == 1
    (dropped,) = StageRows(config(source), processor, teach=False).dropped
    assert dropped.describe() == [], "rewards ask for no thought"
    half = write_lines(published, tmp_path, [json.dumps(row) if i % 2 else "{" for i, row in enumerate(rows)])
    with pytest.raises(UnivgError, match=r"4 of 8 records cannot be used \(4 not_json, first"):
        StageRows(config(half), processor, teach=False)


@pytest.mark.parametrize("teach", [True, False])
@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ((58.0, 53.0, 132.0, 111.0), "wrong_scale"),
        ((0.5, 0.2, 0.1, 0.4), "inverted_box"),
        ((0.5, 0.2, 0.5, 0.4), "degenerate_box"),
        ((0.5001, 0.2, 0.5003, 0.4), "degenerate_box"),
    ],
)
def test_boxes_that_cannot_be_taught_are_not(
    processor: GroundingProcessor, published: Path, tmp_path: Path, box: Any, kind: str, teach: bool
) -> None:
    """Pixels would be written as (58000,53000),…, a box without area as one that nothing overlaps."""
    rows = [json.dumps(row | {"boxes": [box]}) for row in lines_of(published)]
    with pytest.raises(UnivgError, match=rf"8 of 8 records cannot be used \(8 {kind}, first"):
        StageRows(config(write_lines(published, tmp_path, rows)), processor, teach=teach)


@pytest.mark.parametrize(
    ("field", "text", "teach"),
    [
        ("query", "Where is <|image_pad|> it?", True),
        ("query", "Where is <|im_end|> it?", False),
        ("thought", "<think>Left.</think><answer>(1,2),(3,4)</answer>", True),
        ("thought", "Left <|vision_start|>.", True),
    ],
)
def test_texts_with_marks_of_the_chat_are_not_taught(
    processor: GroundingProcessor, published: Path, tmp_path: Path, field: str, text: str, teach: bool
) -> None:
    """They would be read as pictures, or as the end of the answer, when their turn comes."""
    rows = lines_of(published)
    lines = [json.dumps(row | ({field: text} if row is rows[7] else {})) for row in rows]
    (dropped,) = StageRows(
        config(write_lines(published, tmp_path, lines), max_dropped=0.2), processor, teach=teach
    ).dropped
    assert dropped.book.counts == {"reserved_text": 1}


def test_steps_follow_from_epochs_or_are_given(processor: GroundingProcessor, published: Path) -> None:
    def steps(settings: SftConfig) -> int:
        return count_steps(settings, StageRows(settings, processor), 4)

    assert steps(config(file(published), epochs=3)) == 6
    assert steps(config(file(published), DataSource(count=12))) == 5
    assert steps(config(max_steps=7)) == 7
    with pytest.raises(UnivgError, match="the world has no end: give max_steps"):
        steps(config())


def test_the_digest_is_that_of_the_content(
    processor: GroundingProcessor, published: Path, tmp_path: Path
) -> None:
    def digest(source: DataSource) -> str:
        return data_digest(StageRows(config(source), processor))

    same = tmp_path / "same.jsonl"
    same.write_bytes((published / "samples.jsonl").read_bytes())
    moved = DataSource(reader="auto", path=str(same), images=str(published))
    assert digest(file(published)) == digest(moved)
    lines = [json.loads(line) for line in same.read_text().splitlines()]
    lines[3]["thought"] = "Another."
    same.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert digest(file(published)) != digest(moved)
    assert digest(DataSource(image_px=32)) != digest(DataSource(image_px=32, seed=1))
