"""`python -m theory`: the contract's keys, values worked out by hand, bad input."""

import contextlib
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from common import cli
from theory.__main__ import main
from theory.claims import CLAIMS


def theory(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["theory", *arguments])
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as stop,
        ):
            cli.run(main)
    assert isinstance(stop.value.code, int)
    return subprocess.CompletedProcess([], stop.value.code, out.getvalue(), err.getvalue())


def predicted(*arguments: str) -> dict[str, float]:
    done = theory("predict", *arguments)
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)
    assert set(written) == {"claim", "inputs", "predicted"}
    return written["predicted"]


def test_noise_alignment() -> None:
    out = predicted(
        *"noise-alignment --alpha 0.8 --k 5 --sigma-noise 0.1 --sigma-synthetic 0.1".split()
    )
    assert out["generated_over_upsampled"] == pytest.approx(1.8 / 5.8)
    assert out["tolerance"] == 6


def test_amplification() -> None:
    out = predicted(*"amplification --alpha 0.8 --beta-fast 1 --beta-slow 0.5".split())
    assert out["k_star"] == pytest.approx(32)


def test_gradient_variance_by_hand() -> None:
    # N = 2 (one fast, one slow), k = 2, so N' = 3; d' = 2; J = 1; B = 2; l = 1/2
    out = predicted(
        *"gradient-variance --n-examples 2 --dim 4 --filters 1 --alpha 0.5 --beta-fast 2".split(),
        *"--beta-slow 1 --sigma-noise 1 --sigma-synthetic 1 --sigma-init 1 --k 2".split(),
        *"--batch-size 2 --logit 0.5".split(),
    )
    noise = 27 / 4 * 6 * (2 * 4)
    a_fast, a_slow = 9 / 4 * 64 * 3, 9 / 4 * 1 * 3
    features = 1 / 3 * 2 / 3 * (a_fast + a_slow) / 2 * (3 - 2) / (3 - 1)
    assert out["upsampled"] == pytest.approx(features + noise / 2 * (1 + 1 * 2 / 6))
    assert out["generated"] == pytest.approx(features + noise / 2)
    assert out["original"] == pytest.approx(noise / 2)
    assert out["ratio"] == pytest.approx(out["upsampled"] / out["generated"])


def test_family_end_points() -> None:
    copies = predicted(*"family --alpha .8 --k 3 --fidelity 1 --kept-noise 1".split())
    assert copies["effective_k"] == 3
    assert copies["noise_over_upsampled"] == pytest.approx(1)
    fresh = predicted(*"family --alpha .8 --k 3 --fidelity 1 --kept-noise 0".split())
    assert fresh["noise_over_upsampled"] == pytest.approx((0.8 + 0.2 * 3) / (0.8 + 0.2 * 9))
    half = predicted(*"family --alpha .5 --beta-fast 2 --beta-slow 1 --fidelity .5".split())
    assert half["effective_k"] == pytest.approx(1 + 4 / 8)
    assert half["k_star"] == pytest.approx(1 + 7 * 8)


def test_best_k_and_strength() -> None:
    out = predicted(*"best-k --alpha .5 --beta-fast 2 --beta-slow 1 --fidelity 1 --k 8".split())
    assert out["best_k"] == pytest.approx(8)
    assert out["time"] == pytest.approx(4.5)  # N'/N at k = 8
    out = predicted(*"best-k --alpha .5 --fidelity .79".split())
    assert out["best_k"] == 1  # .79³ < 1 - alpha
    curve = "best-k --sigma-noise .2 --fidelity-curve 1 .9 0 --kept-noise-curve 1 .1 0"
    assert predicted(*curve.split())["best_point"] == 1


def test_boundaries() -> None:
    out = predicted(*"sam-noise-boundary --n-examples 1000 --sigma-noise .02".split())
    at = out["sigma_init_boundary"]
    given = "sam-noise-boundary --n-examples 1000 --sigma-noise .02 --sigma-init"
    on = predicted(*given.split(), str(at))
    assert on["rise"] == pytest.approx(on["damping"])
    features = predicted(*"sam-feature-boundary --filters 1 --beta-slow .001".split())
    # one filter, no slow feature: 2 E|z|³ / (3 (1/2) 15) to the power 1/3
    assert features["sigma_init_boundary"] == pytest.approx((2 * 1.5957691 / 22.5) ** (1 / 3))


def test_steps_and_reused_data() -> None:
    out = predicted(*"steps-to-target --target .1 --loss-gap 1 --smoothness 2 --variance 5".split())
    assert out["lr"] == pytest.approx(0.1 / (2 * 5.1))
    assert out["steps"] == pytest.approx(2 * 2 * 5.1 / 0.1**2)
    # N' = 3 (one fast, one slow twice), B = 2: q = 1/3
    given = "reused-data --n-examples 2 --alpha .5 --k 2 --batch-size 2 --lr 1 --smoothness .5"
    out = predicted(*given.split())
    assert out["bias_upsampled"] == pytest.approx((1 + 2 / 3) / 3)
    assert out["batch_variance_upsampled"] == pytest.approx((1 - 1 / 3) * (1 / 2 - 1 / 3))
    assert out["penalty"] == pytest.approx((1 - 1 / 3 - 0.5 * (1 / 2 - 1 / 3)) / 3)


def test_extensions() -> None:
    out = predicted(*"activation --power 5 --alpha .5 --beta-fast 2 --beta-slow 1 --k 3".split())
    assert out == pytest.approx(
        {"mean_part": 1, "label_part": 0, "k_star": 32, "sigma_ratio": 4 ** (1 / 6)}
    )
    assert predicted(*"activation --power 2".split())["mean_part"] == 0
    assert predicted(*"activation --rectified".split())["label_part"] == 0.25
    out = predicted(*"label-noise --label-noise 0 --label-noise-slow .25".split())
    assert out["k_star"] == pytest.approx(2 * 32)
    assert predicted(*"class-imbalance --positive .9 --power 2".split())["growth"] == (
        pytest.approx(0.8)
    )
    assert predicted(*"more-patches --n-patches 4".split())["over_two_patches"] == pytest.approx(3)


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_claim_predicts_with_its_defaults(claim: str) -> None:
    numbers = CLAIMS[claim].predict()
    assert numbers
    assert all(isinstance(value, float | int) for value in numbers.values())


def test_batches_as_large_as_the_augmented_data() -> None:
    out = predicted(*"gradient-variance --batch-size 720".split())  # N' = 720, N = 400
    assert set(out) == {"upsampled", "generated", "ratio"}
    everything = predicted(*"gradient-variance --batch-size 720 --replacement".split())
    assert set(everything) == {"original", "upsampled", "generated", "ratio"}
    assert predicted(*"family-variance --batch-size 720".split())["ratio"] > 0
    assert predicted(*"variance-tolerance --batch-size 720".split())["sigma_ratio"] == (
        pytest.approx(6 ** (1 / 6))
    )


def test_many_patches_do_not_overflow() -> None:
    # beside 2^m − 1, m = 1024 is nothing
    out = predicted(*"alignment-distribution --n-examples 1024 --dim-noise 1".split())
    unit = 3 * 0.5 / 1024 * 0.05**4 * 0.3**2
    assert out["mean"] == pytest.approx(unit * (3 - 4 / math.pi))


def test_negative_values_in_any_notation() -> None:
    for text in ("-0.001", "-1e-3", "-.001"):
        out = predicted("sam-feature-factor", "--projection", text)
        assert out["factor"] == pytest.approx((1 + 0.06 * 0.001) ** 2)


def test_the_share_of_fast_examples_is_not_rounded_where_there_is_no_number() -> None:
    shares = (0.8123, 0.1877)
    evening = 6 * 0.5 * (shares[0] - shares[1] * 0.3**3) * 2 * (2 / math.pi) ** 0.5
    rise = 9 / 4 * (shares[0] - shares[1] * 0.3**6) * (15 + 3 * 7)
    out = predicted(*"sam-feature-boundary --alpha .8123".split())
    assert out["sigma_init_boundary"] == pytest.approx((evening / rise) ** (1 / 3), rel=1e-12)


def test_list(tmp_path: Path) -> None:
    done = theory("list")
    assert done.returncode == 0
    assert all(name in done.stdout for name in CLAIMS)
    file = tmp_path / "claims.json"
    assert theory("list", "--json", str(file)).returncode == 0
    rows = json.loads(file.read_text())["claims"]
    assert [row["name"] for row in rows] == list(CLAIMS)
    assert {"number", "statement", "proved", "check"} <= set(rows[0])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("noise-alignment --alpha 1", "alpha"),
        ("noise-alignment --k 0.5", "k"),
        ("noise-alignment --sigma-noise 0", "sigma_noise"),
        ("amplification --beta-slow 2", "beta_slow"),
        ("amplification --alpha half", "alpha"),
        ("gradient-variance --batch-size 721 --n-examples 400", "batch_size"),
        ("gradient-variance --k 0", "k"),
        ("gradient-variance --n-patches 1", "n_patches"),
        ("gradient-variance --dim 2", "dim"),
        ("gradient-variance --logit 2", "logit"),
        ("convergence --lr 2", "lr"),
        ("nonsense", "nonsense"),
        ("amplification --nonsense 1", "nonsense"),
        ("gaussian-moments --kept-noise 2", "kept_noise"),
        ("amplification --beta-fast inf", "beta_fast"),
        ("amplification --beta-fast nan", "beta_fast"),
        ("noise-alignment --k 1e400", "k"),
        ("noise-tolerance --k 1", "k"),
        ("family --fidelity 0", "fidelity"),
        ("family-variance --batch-size 721", "batch_size"),
        ("best-k --fidelity-curve 1 .5 --kept-noise-curve 1", "kept_noise_curve"),
        ("best-k --fidelity-curve 1 2", "fidelity_curve"),
        ("sam-noise-boundary --sigma-noise 0", "sigma_noise"),
        ("sam-boundary --projection -1", "projection"),
        ("reused-data --lr 2", "lr"),
        ("activation --power 1", "power"),
        ("label-noise --label-noise .5", "label_noise"),
        ("steps-to-target --target 0", "target"),
        ("convergence --loss-final 5", "loss_final"),
        ("moving-logits --dim 3 --filters 2", "filters"),
        ("moving-logits --dim 3 --filters 1 --orthogonal --n-examples 2 --alpha .5", "dim"),
        ("sam-noise-boundary --dim 3 --orthogonal", "dim"),
        ("sam-noise-boundary --n-examples 2", "alpha"),
        ("gradient-variance --n-examples 2", "alpha"),
        ("family-variance --n-examples 2", "alpha"),
        ("reused-data --n-examples 2", "alpha"),
        ("isotropic-noise --n-examples 2", "alpha"),
        ("variance-tolerance --n-examples 2", "alpha"),
        ("family-memorisation --n-examples 2", "alpha"),
        ("best-k --n-examples 2", "alpha"),
        ("noise-alignment --k 1", "k"),
        ("variance-tolerance --k 1", "k"),
        ("activation --k 1", "k"),
        ("variance-tolerance --batch-size 721", "batch_size"),
        ("reused-data --batch-size 721", "batch_size"),
        ("gradient-variance --sigma-noise 0 --sigma-synthetic 0 --batch-size 720", "sigma_noise"),
        ("family-variance --n-examples 20000 --random-counts", "n_examples"),
        ("amplification --beta-fast 1e308", "beta_fast"),
        ("sam-feature-factor --projection -1e-308", "projection"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: str, named: str) -> None:
    done = theory("predict", *arguments.split())
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"--{named.replace('_', '-')} " in done.stderr or named in done.stderr
    assert done.stdout == ""


def test_as_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "theory", "predict", "noise-tolerance", "--k", "3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["predicted"]["tolerance"] == 4


def test_theory_needs_no_torch() -> None:
    code = "import sys; import theory.claims, theory.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
