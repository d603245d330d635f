"""Settings and the command line: what is derived, what is refused and in which words."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from nanofast.arguments import ALIASES, flag_names, normalise, parse
from nanofast.config import (
    Config,
    ConfigError,
    ModelSettings,
    ScheduleSettings,
    from_dict,
    to_dict,
)
from nanofast.config_file import read_config, write_toml
from nanofast.derive import derive, derive_lanes, derive_n_head
from nanofast.plan import Plan, describe, with_horizon


def parsed(*words: str) -> Config:
    return derive(parse(list(words), Config()), world_size=1, device_type="cpu")


def test_depth_alone_decides_the_shape() -> None:
    for depth, width, heads, plain_heads in ((1, 64, 1, 1), (2, 128, 1, 2), (4, 256, 2, 4), (8, 512, 4, 4)):
        model = parsed("--depth", str(depth)).model
        assert (model.n_embd, model.n_head, model.window_pattern) == (width, heads, "SSSL")
        model = parsed("--depth", str(depth), "--shape", "plain").model
        assert (model.n_embd, model.n_head, model.window_pattern) == (width, plain_heads, "L")


def test_the_batch_grows_with_depth_and_weight_decay_falls_with_width() -> None:
    assert [parsed("--depth", depth).schedule.total_batch_size for depth in "2468"] == [1024, 4096, 4096, 8192]
    gpu = [derive(parse(["--depth", depth], Config()), world_size=8, device_type="cuda") for depth in ("12", "24")]
    assert [config.schedule.total_batch_size for config in gpu] == [524_288, 1_048_576]
    assert [config.optimizer.weight_decay for config in gpu] == [0.2, 0.05]
    assert parsed().optimizer.weight_decay == 0.0
    assert parsed("--weight-decay=0.3").optimizer.weight_decay == 0.3


def test_every_derived_value_can_be_set() -> None:
    config = parsed(
        "--n-embd", "96", "--n-head", "3", "--total-batch-size", "1024", "--device-batch-size", "2", "--lanes", "4"
    )
    assert (config.model.n_embd, config.model.n_head) == (96, 3)
    assert (config.schedule.total_batch_size, config.schedule.device_batch_size, config.data.lanes) == (1024, 2, 4)


def test_heads_divide_any_even_width() -> None:
    for width in range(2, 1030, 2):
        assert width % (2 * derive_n_head(width)) == 0


def test_nanochats_spellings_are_understood() -> None:
    config = parse(
        ["--max_seq_len=512", "--unembedding-lr", "0.5", "--num_iterations=7", "--device-type=cpu"], Config()
    )
    assert config.model.sequence_length == 512
    assert config.optimizer.head_lr == 0.5
    assert config.schedule.num_iterations == 7
    assert config.run.device == "cpu"


def test_aliases_lead_to_flags_that_exist() -> None:
    assert set(ALIASES.values()) <= set(flag_names())
    assert not set(ALIASES) & set(flag_names())


def test_flags_have_one_meaning() -> None:
    names = flag_names()
    assert len(names) == len(set(names))


def test_every_setting_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(["--help"], Config())
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in flag_names():
        assert f"--{name}" in shown
    assert "follow from it where they are not set" in shown
    assert "Tokens that the model sees at once (tokens)." in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dept", "4"], "unknown flag `--dept`; did you mean --depth"),
        (["--max-seq-length=4"], "did you mean --max-seq-len"),
        (["--zzz"], "unknown flag `--zzz`; --help lists all"),
        (["--depth", "four"], "--depth takes a whole number; found `four`;"),
        (["--depth", "4.5"], "--depth takes a whole number; found `4.5`; nearest legal values: 4 or 5"),
        (["--lanes=1e1"], "--lanes takes a whole number; found `1e1`; nearest legal value: 10"),
        (["--rope-base=ten"], "--rope-base takes a number; found `ten`"),
        (["--matrix-lr", "high"], "--matrix-lr takes a number; found `high`"),
        (["--dtype", "float31"], "--dtype takes one of auto, float32, bfloat16; found `float31`; .*: float32"),
        (["--shuffle=maybe"], "--shuffle is a switch; found `maybe`; legal values: true or false"),
        (["--seed=-1"], "seed must be at least 0 and less than 2\\^63; found -1; nearest legal value: 0"),
        (["--seed=9223372036854775808"], "nearest legal value: 9223372036854775807"),
        (["stray"], "stray"),
        (["--depth"], "--depth lacks its value"),
        (["--depth=0"], "depth must be at least 1 layer; found 0; nearest legal value: 1"),
        (["--depth=-3"], "depth must be at least 1 layer; found -3"),
        (["--sequence-length=0"], "sequence_length must be at least 1 token"),
        (["--n-embd=100", "--n-head=3"], "multiple of 2 x n_head = 6 .*; found 100; nearest legal values: 96 or 102"),
        (["--n-embd=33"], "n_embd must be even; found 33; nearest legal values: 32 or 34"),
        (
            ["--device-batch-size=8", "--total-batch-size=5000"],
            "8 x 256 x 1 = 2048 tokens; found 5000; .*: 4096 or 6144",
        ),
        (["--total-batch-size=100"], "found 100; nearest legal values: 256"),
        (["--total-batch-size=1000"], "sequence_length x processes = 256 x 1 = 256 tokens; .*: 768 or 1024"),
        (["--num-iterations=0"], "num_iterations must be at least 1 step"),
        (
            ["--num-iterations=5", "--tokens-per-parameter=3"],
            "num_iterations and tokens_per_parameter all set the horizon; give one of them",
        ),
        (["--tokens-per-parameter=0"], "tokens_per_parameter must be more than 0"),
        (["--warmup-ratio=1.5"], "warmup_ratio must lie between 0 and 1; found 1.5; nearest legal value: 1"),
        (["--warmup-ratio=0.7", "--warmdown-ratio=0.5"], "must not exceed 1; .* nearest legal warmdown_ratio: 0.3"),
        (["--matrix-lr=0"], "matrix_lr must be more than 0"),
        (["--matrix-lr=nan"], "matrix_lr must be more than 0"),
        (["--beta1=1"], "beta1 must be at least 0 and less than 1"),
        (["--temperature=-1"], "temperature must be at least 0"),
        (["--eval-every=-2"], "eval_every must be at least -1"),
        (["--grad-clip=nan"], "grad_clip must be at least 0"),
        (["--grad-clip=inf"], "grad_clip must be at least 0 and finite; found inf"),
        (["--weight-decay=inf"], "weight_decay must be at least 0 and finite"),
        (["--logit-soft-cap=inf"], "logit_soft_cap must be at least 0 and finite"),
        (["--temperature=inf"], "temperature must be at least 0 and finite"),
        (["--data="], "data is empty; expected a name or a path"),
        (["--run", " "], "run is empty"),
        (["--rope-base=inf"], "rope_base must be more than 0"),
        (["--window-pattern=SLX"], "window_pattern must be letters S and L; found `SLX`"),
        (["--window-pattern="], "window_pattern must be letters"),
        (["--scale-lr=0"], "scale_lr must be more than 0"),
        (["--shape=nanogpt"], "--shape takes one of plain, nanochat; found `nanogpt`"),
        (["--target-flops=-1e9"], "target_flops must be more than 0"),
        (["--price-per-hour=-1"], "price_per_hour must be at least 0"),
    ],
)
def test_mistakes_are_one_line_with_the_rule(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        parsed(*words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("word", "wanted"), [("--shuffle=true", True), ("--shuffle=0", False), ("--shuffle", True)])
def test_switches_take_values_too(word: str, wanted: bool) -> None:
    assert parsed(word).data.shuffle is wanted
    assert parsed("--report=false").run.report is False
    assert parsed("--no-log-documents").data.log_documents is False


def test_negative_numbers_are_values_and_not_flags() -> None:
    assert parsed("--eval-every", "-1").evaluation.eval_every == -1


def test_words_are_normalised_without_touching_values() -> None:
    assert normalise(["--max_seq_len=8", "--sample-prompts", "a_b", "def x", "--no-report"]) == [
        "--sequence-length", "8", "--sample-prompts", "a_b", "def x", "--no-report",
    ]  # fmt: skip


def test_a_configuration_survives_writing_and_reading() -> None:
    config = parsed("--depth=3", "--sample-prompts", "a", "b")
    assert from_dict(to_dict(config)) == config
    with pytest.raises(ConfigError, match="unknown setting `deepness`"):
        from_dict({"model": {"deepness": 3}})
    with pytest.raises(ConfigError, match="unknown group `modle`"):
        from_dict({"modle": {}})


def test_flags_are_laid_over_the_given_defaults() -> None:
    defaults = Config(model=ModelSettings(depth=9), schedule=ScheduleSettings(num_iterations=50))
    config = parse(["--num-iterations=60"], defaults)
    assert config.model.depth == 9
    assert config.schedule.num_iterations == 60


def test_lanes_let_a_step_end_where_a_round_ends() -> None:
    for batches in range(1, 40):
        for world_size in (1, 2, 4, 8):
            lanes = derive_lanes(batches * world_size, world_size)
            assert lanes % world_size == 0
            assert (batches * world_size) % lanes == 0
    assert derive_lanes(16, 1) == 8


def test_a_step_is_a_whole_number_of_micro_batches_on_any_device() -> None:
    for device_type in ("cpu", "cuda", "mps"):
        for sequence_length in (1, 100, 256, 1024, 2048, 5000):
            for world_size in (1, 2, 3, 8):
                given = Config(model=ModelSettings(sequence_length=sequence_length))
                schedule = derive(given, world_size=world_size, device_type=device_type).schedule
                assert schedule.total_batch_size is not None
                assert schedule.device_batch_size is not None
                assert schedule.total_batch_size % (schedule.device_batch_size * sequence_length * world_size) == 0


def test_the_horizon_follows_the_ratio_where_data_is_named() -> None:
    config = parsed("--data", "x", "--total-batch-size", "1024")
    assert with_horizon(config, 512_000, 10**6).schedule.num_iterations == 10_000
    config = parsed("--tokens-per-parameter", "2", "--total-batch-size", "1024")
    assert with_horizon(config, 512_000, 10**6).schedule.num_iterations == 1000
    config = parsed("--target-flops", "1e12", "--total-batch-size", "1024")
    assert with_horizon(config, 512_000, 10**6).schedule.num_iterations == 977
    assert with_horizon(parsed("--num-iterations=3"), 512_000, 10**6).schedule.num_iterations == 3


TOML_NEEDED = pytest.mark.skipif(sys.version_info < (3, 11), reason="TOML is read by Python 3.11 and later")


@TOML_NEEDED
def test_a_written_configuration_can_be_fed_back(tmp_path: Path) -> None:
    config = parsed("--depth=3", "--sample-prompts", 'say "hi"', "a\\b\n", "--no-report")
    write_toml(config, tmp_path / "config.toml")
    assert read_config(tmp_path / "config.toml", Config()) == config


@TOML_NEEDED
def test_a_file_lies_between_defaults_and_flags(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text("depth = 6\n[schedule]\nnum_iterations = 600\nwarmup_ratio = 0\n")
    config = parse(["--num-iterations=7"], read_config(path, Config()))
    assert (config.model.depth, config.schedule.num_iterations, config.schedule.warmup_ratio) == (6, 7, 0)


def test_a_python_file_may_compute(tmp_path: Path) -> None:
    path = tmp_path / "small.py"
    path.write_text("import math\ndepth = 2 * 3\nnum_iterations = 100 * depth\n")
    config = read_config(path, Config())
    assert (config.model.depth, config.schedule.num_iterations) == (6, 600)


@TOML_NEEDED
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dept = 3", "unknown setting `dept`; did you mean depth"),
        ("depth = 3.5", "depth must be int; found 3.5"),
        ("depth = true", "depth must be int; found True"),
        ("report = 1", "report must be bool; found 1"),
        ('[run]\ndtype = "float31"', "dtype must be Literal"),
        ("depth 3", "is no TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(path, Config())


def test_a_missing_or_failing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file"):
        read_config(tmp_path / "none.toml", Config())
    (tmp_path / "wrong.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        read_config(tmp_path / "wrong.py", Config())


def test_learning_rates_follow_width_and_batch() -> None:
    def rates(*words: str) -> tuple[float, ...]:
        found = parsed(*words).optimizer
        return tuple(rate or 0.0 for rate in (found.matrix_lr, found.embedding_lr, found.head_lr))

    base = rates("--depth=4", "--total-batch-size=4096")
    wider = rates("--depth=16", "--total-batch-size=4096")
    larger = rates("--depth=4", "--total-batch-size=16384")
    assert wider == pytest.approx((base[0], base[1] / 2, base[2] / 2), rel=1e-3)
    assert larger == pytest.approx(tuple(2 * rate for rate in base), rel=1e-3)
    assert rates("--matrix-lr=0.5")[0] == 0.5


def test_the_plan_counts_tokens_and_compute() -> None:
    config = with_horizon(parsed("--num-iterations=10", "--total-batch-size=4096"), 1, 1)
    parameters = {"embedding": 10, "head": 10, "matrices": 100, "total": 120}
    plan = Plan(config, 1, parameters, 1000, 50, 4, 1e9, "measured")
    assert plan.tokens == 40_960
    assert plan.seconds == pytest.approx(40_960 * 1000 / (0.4 * 1e9))
    assert plan.memory_bytes > 120 * 4 * 3
    assert any("10 steps, 40,960 tokens" in line for line in describe(plan))


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().model.depth = 3  # type: ignore[misc]
