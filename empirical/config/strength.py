"""How many denoising steps a strength leaves: plain arithmetic, so that nothing heavy is loaded."""

from __future__ import annotations

import math

from common.errors import require

TRAIN_TIMESTEPS = 1000
"""Timesteps of the diffusions trained here, and of nearly all public ones."""


def check_strength(strength: float, name: str = "strength") -> None:
    """Raise ParameterError unless strength lies in (0, 1]."""
    require(0 < strength <= 1, name, strength, "in (0, 1]")


def share_of_steps(steps: int, strength: float, name: str = "strength") -> int:
    """floor(steps * strength), as diffusers has it, but 0.58 of 50 steps is 29 and not 28.

    Raises:
        ParameterError: strength is outside (0, 1], or no step is left.
    """
    check_strength(strength, name)
    done = math.floor(steps * strength + 1e-9)
    check_steps_left(done, steps, strength, name)
    return done


def check_steps_left(done: int, steps: int, strength: float, name: str = "strength") -> None:
    """Refuse a strength at which nothing would be denoised, and the image come back as it is."""
    allowed = f"at least {1 / steps:g}: below it none of {steps} denoising steps is left"
    require(done >= 1, name, strength, allowed)


def grid(
    steps: int,
    fixed: bool,
    strength: float,
    train_steps: int = TRAIN_TIMESTEPS,
    name: str = "strength",
) -> tuple[int, int]:
    """Steps of the whole trajectory, and how many of them are done at a strength.

    fixed: steps are those of every image, and the trajectory is cut finer at a low strength; else
    they are those of the trajectory, of which strength leaves a share; name: the strength's own.

    Raises:
        ParameterError: strength is outside (0, 1], leaves no step, or no room for fixed steps.
    """
    check_strength(strength, name)
    if not fixed:
        least = f"at most {train_steps}, the steps of the diffusion"
        require(steps <= train_steps, "steps", steps, least)
        return steps, share_of_steps(steps, strength, name)
    # infinite at the least strengths
    whole = round(min(steps / strength, train_steps + 1))
    allowed = f"at least {steps / train_steps:g}: below it {steps} denoising steps do not fit "
    allowed += f"into that share of {train_steps} timesteps"
    require(whole <= train_steps, name, strength, allowed)
    return whole, steps
