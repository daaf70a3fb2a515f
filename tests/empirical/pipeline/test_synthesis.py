"""Synthetic images through the command line: generators and their options, one store, failures."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from pyarrow import parquet

from common.errors import ParameterError
from empirical.__main__ import main
from empirical.config.presets import DIGITS
from empirical.config.settings import changed
from empirical.storage import request as requests
from empirical.storage import store as stores
from empirical.storage.folder import lock
from tests.messages import says

Command = Callable[..., tuple[int, str, str]]
Contents = Callable[[Path], dict[str, bytes]]
Stored = Callable[..., list[np.ndarray]]

FLAGS = "--epochs 2 --separating-epoch 2 --denoising-steps 4 --cpu".split()
SHARES = "--no-fixed-steps --strength .5 --boomerang-strength .5".split()
OPTIONS = {"pixel": [], "hub": SHARES}

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
)


@pytest.fixture(scope="module")
def pixel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of digits, by the command that trains it."""
    folder = tmp_path_factory.mktemp("pixel") / "model"
    words = ["train-generator", "--dataset", "digits", "--steps", "2", "--widths", "16", "32"]
    with pytest.raises(SystemExit) as stop:
        main([*words, "--count", "500", "--out", str(folder)])
    assert stop.value.code == 0
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion with random weights, as diffusers saves it."""
    transformers = pytest.importorskip("transformers")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder = tmp_path_factory.mktemp("hub") / "model"
    files = [folder.with_name("vocab.json"), folder.with_name("merges.txt")]
    files[0].write_text(json.dumps({word: number for number, word in enumerate(words)}))
    files[1].write_text("#version: 0.2\n")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        StableDiffusionPipeline(
            vae=AutoencoderKL(
                block_out_channels=(8, 16),
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                latent_channels=4,
                norm_num_groups=8,
            ),
            text_encoder=transformers.CLIPTextModel(
                transformers.CLIPTextConfig(
                    vocab_size=len(words),
                    hidden_size=16,
                    intermediate_size=16,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    bos_token_id=len(words) - 2,
                    eos_token_id=len(words) - 1,
                    pad_token_id=len(words) - 1,
                )
            ),
            tokenizer=transformers.CLIPTokenizer(*map(str, files), model_max_length=77),
            unet=UNet2DConditionModel(
                block_out_channels=(16, 32),
                layers_per_block=1,
                sample_size=8,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                norm_num_groups=8,
                cross_attention_dim=16,
            ),
            scheduler=DDIMScheduler(
                beta_schedule="scaled_linear",
                clip_sample=False,
                set_alpha_to_one=False,
                steps_offset=1,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder)
    return folder


@pytest.fixture
def model(request: pytest.FixtureRequest) -> Callable[[str], list[str]]:
    """The flags of a generator by its kind."""

    def flags(kind: str) -> list[str]:
        folder = request.getfixturevalue(kind)
        return ["--generator", f"{kind}:{folder}", *OPTIONS[kind]]

    return flags


Model = Callable[[str], list[str]]


@pytest.fixture
def generate(command: Command) -> Command:
    """The command generate, or another stage, with flags for a second's work."""

    def call(out: Path, *words: object, stage: str = "generate") -> tuple[int, str, str]:
        return command(stage, *FLAGS, *words, "--out", out)

    return call


def columns(folder: Path) -> dict[str, list[Any]]:
    rows = parquet.read_table(sorted((folder / "data").glob("*.parquet")))
    return {name: rows[name].to_pylist() for name in rows.column_names if name != "image"}


def one_line(result: tuple[int, str, str], *named: object) -> None:
    """Exit code 2, nothing on stdout, and one line that says it all (after progress)."""
    code, said, err = result
    progress = (" in 0.", "is at chance")
    lines = [line for line in err.splitlines() if not any(part in line for part in progress)]
    lines = [line for line in lines if " of " not in line[:40]]
    assert (code, said, len(lines)) == (2, "", 1), err
    assert lines[0].startswith("error: ")
    assert "Traceback" not in err
    for name in named:
        assert says(lines[0], str(name))


# generators and their options


@pytest.mark.parametrize("kind", ["pixel", "hub"])
def test_batches_and_the_whole_run(
    kind: str, model: Model, generate: Command, tmp_path: Path, stored: Stored
) -> None:
    """Batches of 1, 3 and 16 agree within one level; then the run uses what is there."""
    made = []
    for size in (1, 3, 16):
        out = tmp_path / f"{size}"
        code, said, err = generate(out, *model(kind), "--generation-batch", size)
        assert code == 0, err
        assert said == f"40 synthetic images: {out / 'synthetic'}\n"
        made.append(np.stack(stored(out / "synthetic")).astype(int))
    assert made[0].shape == (40, 8, 8)
    assert max(abs(made[0] - other).max() for other in made[1:]) <= 1
    # not always equal, so that nothing else is compared than is meant: images differ
    assert abs(made[0][0] - made[0][1]).max() > 1
    about = json.loads((out / "synthetic" / "store.json").read_text())
    assert about["backend"] == kind
    assert set(columns(out / "synthetic")["steps"]) == {4 if kind == "pixel" else 2}
    assert not (out / "generator").exists()
    code, said, err = generate(out, *model(kind), stage="run")
    assert (code, "100 real + 40 synthetic" in said) == (0, True), err
    assert "synthetic images" not in err


def test_a_trajectory_ends_at_the_single_image(
    model: Model, generate: Command, tmp_path: Path, stored: Stored
) -> None:
    single, along = tmp_path / "single", tmp_path / "along"
    assert generate(single, *model("pixel"))[0] == 0
    assert generate(along, *model("pixel"), "--trajectory", "--k", 3)[0] == 0
    assert sorted(set(columns(along / "synthetic")["steps"])) == [2, 4]
    last, only = np.stack(stored(along / "synthetic", "02")), np.stack(stored(single / "synthetic"))
    assert abs(last.astype(int) - only).max() <= 1
    assert (np.stack(stored(along / "synthetic", "01")) != last).any()
    about = json.loads((along / "synthetic" / "store.json").read_text())
    assert (about["trajectory"], about["k"], about["kept"]) == (True, 3, "prediction")
    # another k has other images on the way: not from this store
    other = generate(
        tmp_path / "k",
        *model("pixel"),
        "--trajectory",
        "--k",
        4,
        "--synthetic",
        along / "synthetic",
    )
    one_line(other, "k = 4: must be 3 as in", along / "synthetic" / "store.json")


def test_strengths_in_turn(model: Model, generate: Command, tmp_path: Path) -> None:
    result = generate(tmp_path / "run", *model("pixel"), "--strengths", ".3", ".6", "--k", 4)
    assert result[0] == 0, result[2]
    found = columns(tmp_path / "run" / "synthetic")
    pairs = set(zip(found["copy"], found["strength"], strict=True))
    assert pairs == {(1, 0.3), (2, 0.6), (3, 0.3)}
    assert len(found["copy"]) == 3 * 40


@pytest.mark.parametrize("kind", ["pixel", "hub"])
def test_from_noise(
    kind: str, model: Model, generate: Command, tmp_path: Path, stored: Stored
) -> None:
    assert generate(tmp_path / "noise", *model(kind), "--from-noise")[0] == 0
    store = tmp_path / "noise" / "synthetic"
    assert json.loads((store / "store.json").read_text())["backend"] == f"{kind} from noise"
    found = columns(store)
    assert set(found["strength"]) == {1.0}
    assert set(found["steps"]) == {4}
    with_images = generate(tmp_path / "other", *model(kind), "--synthetic", store)
    one_line(with_images, f"backend = {kind}: must be {kind} from noise as in")


def test_two_arms_share_one_store(
    model: Model, generate: Command, tmp_path: Path, contents: Contents
) -> None:
    shared = tmp_path / "shared"
    given = [*model("pixel"), "--synthetic", shared]
    assert generate(tmp_path / "tada", *given)[0] == 0
    before = contents(shared / "data")
    code, said, err = generate(tmp_path / "all", *given, "--arm", "syn-all")
    assert (code, said) == (0, f"100 synthetic images: {shared}\n")
    assert "synthetic images: 60 of 60 in" in err
    assert before.items() <= contents(shared / "data").items()
    assert len(columns(shared)["source"]) == 100
    after = contents(shared)
    code, _, err = generate(tmp_path / "tada", *given, stage="run")
    assert (code, "synthetic images:" in err) == (0, False)
    assert contents(shared) == after
    assert not (tmp_path / "all" / "synthetic").exists()
    one_line(
        generate(tmp_path / "seed", *given, "--seed", 5),
        "seed = 5: must be 0 as in",
        shared / "store.json",
    )
    with_other = generate(tmp_path / "model", *given, "--sampler", "ddpm")
    one_line(with_other, "model = ", "as in", shared / "store.json")
    assert contents(shared) == after


def test_glide_without_its_package(
    generate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "glide_text2im", None)
    for stage in ("generate", "run"):
        out = tmp_path / stage
        result = generate(out, "--generator", "glide", *SHARES, stage=stage)
        one_line(result, "generator glide needs glide_text2im", "pip install")
        assert not (out / "synthetic").exists()
        assert not (out / "selection.json").exists()


@pytest.mark.parametrize("kind", ["pixel", "hub"])
def test_a_folder_that_is_not_there(generate: Command, tmp_path: Path, kind: str) -> None:
    missing = tmp_path / "nowhere"
    result = generate(tmp_path / "run", "--generator", f"{kind}:{missing}", *SHARES)
    one_line(result, f"generator = {kind}:{missing}: must be {kind}: and the folder of a model")
    assert not (tmp_path / "run" / "selection.json").exists()


def test_strengths_of_other_arms_need_no_step() -> None:
    few: dict[str, Any] = {"denoising_steps": 4, "fixed_steps": False, "strength": 0.5}
    assert changed(DIGITS, arm="tada", boomerang_strength=0.2, **few).arm_strengths == (0.5,)
    assert changed(DIGITS, arm="boomerang", boomerang_strength=0.25, **few).arm_strengths == (0.25,)
    with pytest.raises(ParameterError, match=r"boomerang_strength = 0\.2: must be at least 0\.25"):
        changed(DIGITS, arm="boomerang", boomerang_strength=0.2, **few)


# damage, kills, a full disk


@pytest.fixture
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "SHARD_IMAGES", 256)


@pytest.mark.usefixtures("_small_shards")
def test_a_flipped_byte_is_named_and_repaired(
    model: Model, generate: Command, tmp_path: Path, contents: Contents
) -> None:
    out = tmp_path / "run"
    assert generate(out, *model("pixel"))[0] == 0
    whole = contents(out / "synthetic")
    path = sorted((out / "synthetic" / "data").iterdir())[2]
    raw = bytearray(path.read_bytes())
    encoded = [own["bytes"] for own in parquet.read_table(path)["image"].to_pylist()]
    png = next(own for own in encoded if raw.count(own) == 1)  # no least or greatest value
    raw[raw.index(png) + 50] ^= 1
    path.write_bytes(raw)
    damaged = contents(out / "synthetic")
    for stage in ("generate", "run"):
        result = generate(out, *model("pixel"), stage=stage)
        one_line(result, f"{path} is not", "but for the image of source")
    assert contents(out / "synthetic") == damaged
    code, said, err = generate(out, *model("pixel"), "--repair")
    assert (code, said) == (0, f"40 synthetic images: {out / 'synthetic'}\n"), err
    n = len(parquet.read_table(path))
    assert f"synthetic images: {n} of {n} in" in err  # that shard alone
    assert contents(out / "synthetic") == whole
    code, _, err = generate(out, *model("pixel"), "--repair")
    assert (code, err) == (0, "")


@pytest.mark.usefixtures("_small_shards")
def test_a_full_disk_is_one_line_and_resumes(
    model: Model,
    generate: Command,
    tmp_path: Path,
    contents: Contents,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = (*model("pixel"), "--generation-batch", 7)
    assert generate(tmp_path / "whole", *words)[0] == 0
    write, written = Path.write_bytes, [0]

    def full(path: Path, raw: bytes) -> int:
        written[0] += path.suffixes[-2:] == [".parquet", ".part"]
        if written[0] == 3:
            write(path, raw[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, raw)

    out = tmp_path / "full"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        result = generate(out, *words)
    one_line(result, out / "synthetic" / "data", ".parquet", "No space left on device")
    assert len(list((out / "synthetic" / "data").iterdir())) == 2
    code, _, err = generate(out, *words)
    assert code == 0, err
    assert contents(out / "synthetic") == contents(tmp_path / "whole" / "synthetic")


@pytest.mark.usefixtures("_small_shards")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_at_several_moments(
    model: Model, generate: Command, tmp_path: Path, contents: Contents
) -> None:
    words = [*FLAGS, *model("pixel"), "--generation-batch", "7"]
    assert generate(tmp_path / "whole", *model("pixel"), "--generation-batch", 7)[0] == 0
    out = tmp_path / "killed"
    assert generate(out, *model("pixel"), stage="select")[0] == 0

    def killed(name: str, number: int) -> int:
        """The same command in another process, which dies in a call of a function."""
        child = os.fork()
        if child:
            return os.waitpid(child, 0)[1]
        try:
            whole, calls = getattr(stores, name), [0]

            def dies(*given: Any) -> Any:
                calls[0] += 1
                if calls[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return whole(*given)

            setattr(stores, name, dies)
            signal.alarm(60)
            main(["generate", *words, "--out", str(out)])
        except BaseException:
            traceback.print_exc()
        os._exit(1)

    moments = [("open_store", 1), ("encode", 1), ("write_shard", 2), ("encode", 9)]
    for moment in [*moments, ("write_manifest", 1)]:
        assert os.WTERMSIG(killed(*moment)) == signal.SIGKILL
    code, _, err = generate(out, *model("pixel"), "--generation-batch", 7)
    assert code == 0, err
    assert contents(out / "synthetic") == contents(tmp_path / "whole" / "synthetic")


def test_a_second_writer_is_refused(model: Model, generate: Command, tmp_path: Path) -> None:
    held = lock(tmp_path / "shared")
    try:
        result = generate(tmp_path / "run", *model("pixel"), "--synthetic", tmp_path / "shared")
        one_line(result, "--synthetic", "that no other process writes; one does now")
    finally:
        held.release()
    again = generate(tmp_path / "run", *model("pixel"), "--synthetic", tmp_path / "shared")
    assert again[0] == 0, again[2]


# models that do not fit


@pytest.fixture
def pictures(tmp_path: Path, rng: np.random.Generator) -> Callable[..., list[object]]:
    """Flags of a run on coloured images in folders with these names."""

    def flags(*names: str) -> list[object]:
        root = tmp_path / "pictures"
        for name in names:
            (root / name).mkdir(parents=True)
            for index in range(8):
                pixels = rng.integers(256, size=(8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / name / f"{index}.png")
        flags = ["--dataset", f"folder:{root}", "--network", "small", "--data", tmp_path / "data"]
        return [*flags, "--batch-size", 6, "--no-trajectory"]

    return flags


def test_a_model_for_other_images(
    model: Model, generate: Command, tmp_path: Path, pictures: Callable[..., list[object]]
) -> None:
    fixed = ["--fixed-steps", "--guidance", 1]
    result = generate(tmp_path / "run", *pictures("cat", "dog"), *model("pixel"), *fixed)
    one_line(result, f"{model('pixel')[1][6:]}: must be ")


def test_a_store_of_other_data(
    model: Model, generate: Command, tmp_path: Path, pictures: Callable[..., list[object]]
) -> None:
    shared = tmp_path / "shared"
    assert generate(tmp_path / "digits", *model("hub"), "--synthetic", shared)[0] == 0
    flags = [*pictures("cat", "dog"), *model("hub"), "--guidance", 1, "--synthetic", shared]
    one_line(
        generate(tmp_path / "run", *flags), "as in", shared / "store.json", "or another folder"
    )


def test_class_names_that_are_missing(
    model: Model, generate: Command, tmp_path: Path, pictures: Callable[..., list[object]]
) -> None:
    result = generate(tmp_path / "run", *pictures("cat", ", dog"), *model("hub"))
    one_line(result, "classes = ", "names, at least one and none of them empty")
    assert not (tmp_path / "run").exists()
    result = generate(tmp_path / "prompt", *model("hub"), "--prompt", "a photo")
    one_line(result, "prompt = 'a photo': must be a text that contains {class}")


@pytest.mark.parametrize("kind", ["pixel", "hub"])
@pytest.mark.parametrize("damage", ["empty", "no weights", "cut weights", "config"])
def test_damaged_model_folders(
    kind: str,
    damage: str,
    model: Model,
    generate: Command,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "model"
    flags = model(kind)
    if damage == "empty":
        folder.mkdir()
    else:
        shutil.copytree(flags[1].partition(":")[2], folder)
        weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
        if damage == "no weights":
            weights.unlink()
        elif damage == "cut weights":
            weights.write_bytes(weights.read_bytes()[:-1000])
        else:
            (folder / "unet" / "config.json").write_text("{")
    result = generate(tmp_path / "run", *flags[:1], f"{kind}:{folder}", *flags[2:])
    one_line(result, f"{folder}: must be")
    assert not (tmp_path / "run" / "synthetic").exists()
