"""Every claim: its name, where it stands and is proved, and its prediction from parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.errors import near, require
from theory import (
    amplification,
    convergence,
    extensions,
    family,
    gradient_variance,
    moments,
    sam,
    sam_validity,
)
from theory.parameters import Prediction, check_ranges


@dataclass(frozen=True)
class Claim:
    """One claim of the theory.

    name: also the name of its check in `sim verify`.
    number: the paper's, e.g. "Theorem 4.3"; "Beyond the paper" where it has no such result.
    equations: labels on the page.
    page: the file in theory/ that proves it; anchor: its heading.
    formula: keyword parameters to numbers; what `python -m theory predict` calls.
    """

    name: str
    number: str
    title: str
    statement: str
    equations: str
    page: str
    anchor: str
    formula: Callable[..., Prediction]

    @property
    def proved(self) -> str:
        """Where, as a link from the repository's root."""
        return f"theory/{self.page}#{self.anchor}"

    @property
    def source(self) -> str:
        """Where it is proved, in one line."""
        return f"{self.number}, equations {self.equations}; {self.proved}"

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The prediction's parameters with their defaults."""
        return dict(inspect.signature(self.formula).parameters)

    def predict(self, **inputs: float | Sequence[float]) -> Prediction:
        """The prediction. Raises ParameterError for a parameter out of its range."""
        check_ranges(inputs)
        return self.formula(**inputs)


CLAIMS = {
    claim.name: claim
    for claim in (
        Claim(
            "gaussian-moments",
            "Lemma 1",
            "Gaussian moments",
            "The moments of one noise patch and of a pair that shares a part tau.",
            "(M1) to (M6)",
            "moments.md",
            "gaussian-moments",
            moments.predict_gaussian_moments,
        ),
        Claim(
            "sam-feature-factor",
            "Theorem 4.1",
            "SAM slows fast features more",
            "With frozen logits SAM multiplies the gradient along v by (1 - kappa_v <w,v>)^2.",
            "(4), (5)",
            "sam.md",
            "a-features",
            sam.predict_sam_feature_factor,
        ),
        Claim(
            "sam-noise-damping",
            "Theorem 4.1",
            "SAM damps noise",
            "With frozen logits and orthogonal noise patches SAM multiplies the gradient along "
            "xi_i by (1 - lambda_i y<w,xi>|xi|^2)^2, below 1 on I_{j,+}.",
            "(6), (7)",
            "sam.md",
            "b-noise-orthogonal-patches",
            sam.predict_sam_noise_damping,
        ),
        Claim(
            "sam-noise-damping-gaussian",
            "Theorem 4.1",
            "SAM damps Gaussian noise in distribution",
            "Mean damping over Gaussian noise, orthogonal (exact) and independent (first order in "
            "rho), and the spread of what other examples add.",
            "(8), (9), (31)",
            "sam.md",
            "c-noise-in-distribution",
            sam.predict_sam_noise_damping_gaussian,
        ),
        Claim(
            "sam-boundary",
            "Theorem 4.1",
            "Where SAM's noise claim stops, given the data",
            "With real logits SAM raises every logit; the ratio's slope in rho is negative for "
            "small initialisation and positive outside.",
            "(10), (11)",
            "sam_validity.md",
            "a-given-the-data",
            sam.predict_sam_boundary,
        ),
        Claim(
            "moving-logits",
            "Beyond the paper",
            "How SAM moves the logits, and what that does to noise",
            "dl_i/dh is the tangent kernel's row times l; NoiseAlign(SAM)/NoiseAlign(GD) has "
            "slope rise - damping in h = rho/|grad L|; logits that differ at W take from both.",
            "(B1), (B2), (B7), (B8)",
            "sam_validity.md",
            "b-given-the-filters",
            sam_validity.predict_moving_logits,
        ),
        Claim(
            "sam-noise-boundary",
            "Beyond the paper",
            "Below which sigma_init SAM aligns less with noise",
            "rise grows with sigma_init^4, damping with sigma_init: they cross at one sigma_init.",
            "(B3), (B4), (B9) to (B12)",
            "sam_validity.md",
            "c-in-expectation-over-the-initialisation",
            sam_validity.predict_sam_noise_boundary,
        ),
        Claim(
            "sam-feature-boundary",
            "Beyond the paper",
            "Below which sigma_init SAM learns more evenly",
            "The same for the slow feature's growth over the fast one's; independent of N, d and "
            "noise.",
            "(B5), (B6)",
            "sam_validity.md",
            "d-features",
            sam_validity.predict_sam_feature_boundary,
        ),
        Claim(
            "amplification",
            "Theorem 4.2",
            "U(k) and G(k) learn features alike",
            "Slow over fast feature growth rises k-fold in both; they are equal at k*.",
            "(12) to (14), (32), (33)",
            "amplification.md",
            "a-features",
            amplification.predict_amplification,
        ),
        Claim(
            "noise-alignment",
            "Theorem 4.2",
            "G(k) aligns less with noise than U(k)",
            "E NoiseAlign(G)/E NoiseAlign(U) = (alpha + (1-alpha)(1+(k-1)r)) / (alpha + "
            "k^2(1-alpha)).",
            "(15) to (19)",
            "amplification.md",
            "b-noise",
            amplification.predict_noise_alignment,
        ),
        Claim(
            "noise-tolerance",
            "Theorem 4.2",
            "Generation tolerates k + 1",
            "E NoiseAlign(G) < E NoiseAlign(U) exactly when r < k + 1 (k > 1).",
            "(20)",
            "amplification.md",
            "c-comparison",
            amplification.predict_noise_tolerance,
        ),
        Claim(
            "alignment-distribution",
            "Beyond the paper",
            "The distribution of noise alignment",
            "For independent noise: the mean of NoiseAlign itself, and the spread of one patch's.",
            "(A1), (A2)",
            "amplification.md",
            "d-distribution",
            amplification.predict_alignment_distribution,
        ),
        Claim(
            "family",
            "Beyond the paper",
            "One family from copies to faithful images",
            "Feature growth counts a synthetic example c^3 times; noise alignment interpolates "
            "between k^2 and 1 + (k-1) a^4, for orthogonal noise a little lower.",
            "(F1) to (F3)",
            "family.md",
            "a-one-step",
            family.predict_family,
        ),
        Claim(
            "family-variance",
            "Beyond the paper",
            "Gradient variance of the family",
            "Exact for any (k, c, tau, a), fixed or random counts, with and without replacement, "
            "independent or orthogonal noise.",
            "(F4) to (F6)",
            "family.md",
            "b-gradient-variance",
            family.predict_family_variance,
        ),
        Claim(
            "family-memorisation",
            "Beyond the paper",
            "Feature or noise first",
            "A synthetic example adds c^3 to the feature and (a tau)^3 to its source's noise: "
            "enough of them let the feature gain on its noise exactly when a tau < c.",
            "(F7) to (F9)",
            "family.md",
            "c-feature-or-noise-first",
            family.predict_family_memorisation,
        ),
        Claim(
            "best-k",
            "Beyond the paper",
            "The best k, and the best strength",
            "Fewest steps to learn both features: k = 1 + (k* - 1)/c^3 if c^3 > 1 - alpha and "
            "k* > 1, else 1.",
            "(F10) to (F12)",
            "family.md",
            "d-the-best-k-and-the-best-strength",
            family.predict_best_k,
        ),
        Claim(
            "gradient-variance",
            "Theorem 4.3",
            "Copies share noise, so batches of U(k) vary more",
            "Exact mini-batch gradient variance of original, U(k) and G(k), with and without "
            "replacement.",
            "(21) to (27)",
            "gradient_variance.md",
            "theorem-43",
            gradient_variance.predict_gradient_variance,
        ),
        Claim(
            "variance-tolerance",
            "Theorem 4.3",
            "How noisy synthetic images may be",
            "V_G < V_U exactly when (sigma_syn/sigma_noise)^6 < 1 + k(B-1)/(N'-1).",
            "(30)",
            "gradient_variance.md",
            "tolerance",
            gradient_variance.predict_variance_tolerance,
        ),
        Claim(
            "convergence",
            "Corollary 4.4",
            "The rate of SGD on G(k) and on U(k)",
            "Mean squared gradient norm <= 2(L_0 - L_T)/(lr T) + lr L_s V, attained by isotropic "
            "quadratics; with fresh data at every step V is smaller on G(k) where (30) says so.",
            "(28)",
            "convergence.md",
            "a-the-bound",
            convergence.predict_convergence,
        ),
        Claim(
            "smoothness",
            "Beyond the paper",
            "A local smoothness constant",
            "L_s of the cubic network's loss on a ball, from the data or from norms.",
            "(C1), (C2)",
            "convergence.md",
            "b-smoothness",
            convergence.predict_smoothness,
        ),
        Claim(
            "steps-to-target",
            "Corollary 4.4",
            "Steps to a target gradient norm",
            "At the best learning rate the steps are proportional to target + V.",
            "(C3), (C4)",
            "convergence.md",
            "c-steps-to-a-target",
            convergence.predict_steps_to_target,
        ),
        Claim(
            "reused-data",
            "Corollary 4.4",
            "Data that are used again and again",
            "The population gradient obeys the bound with the data's own noise added; the sum of "
            "both noises is never smaller on U(k), though its batches vary less.",
            "(C5) to (C7)",
            "convergence.md",
            "d-data-used-again-and-again",
            convergence.predict_reused_data,
        ),
        Claim(
            "test-error",
            "Corollary 4.4",
            "A whole run: copies memorise, faithful images teach",
            "U(5) leaves slow test examples at chance, error (1-alpha)/2; G(5) is below it.",
            "(29)",
            "convergence.md",
            "e-a-whole-run",
            convergence.predict_whole_run,
        ),
        Claim(
            "activation",
            "Beyond the paper",
            "Other activations",
            "z^q with odd q and ReLU^q keep every result with q in place of 3; even powers cannot "
            "see the label.",
            "(E1) to (E9)",
            "extensions.md",
            "a-activations",
            extensions.predict_activation,
        ),
        Claim(
            "label-noise",
            "Beyond the paper",
            "Wrong labels",
            "Growth and kappa are multiplied by 1 - 2 eta; k* changes only where eta differs "
            "between fast and slow; noise results stay.",
            "(E8) to (E11)",
            "extensions.md",
            "b-wrong-labels",
            extensions.predict_label_noise,
        ),
        Claim(
            "class-imbalance",
            "Beyond the paper",
            "Unequal classes",
            "Nothing changes for odd q; a filter of ReLU^q sees one class only; even powers grow "
            "by the classes' difference.",
            "(E12)",
            "extensions.md",
            "c-unequal-classes",
            extensions.predict_class_imbalance,
        ),
        Claim(
            "isotropic-noise",
            "Beyond the paper",
            "Noise along the features",
            "Means and Theorem 4.3 survive with d in place of d - 2; the feature factor (5) is no "
            "longer exact.",
            "(E13) to (E15)",
            "extensions.md",
            "d-noise-along-the-features",
            extensions.predict_isotropic_noise,
        ),
        Claim(
            "more-patches",
            "Beyond the paper",
            "More than one noise patch",
            "Every result holds for each patch; noise variances are multiplied by P - 1.",
            "(7), (21)",
            "extensions.md",
            "e-more-patches",
            gradient_variance.predict_more_patches,
        ),
    )
}
"""Every claim by name, in the order of the pages."""


def predict(claim: str, **inputs: float | Sequence[float]) -> Prediction:
    """The numbers that a claim predicts, by name, as `python -m theory predict` prints them.

    claim: its name, as in `CLAIMS`; inputs: its parameters; the others have their defaults.

    Raises:
        ParameterError: there is no such claim, or a parameter is out of its range.
    """
    allowed = f"one of {', '.join(CLAIMS)}{near(claim, CLAIMS)}"
    require(claim in CLAIMS, "claim", claim, allowed)
    known = CLAIMS[claim].parameters
    for name in inputs:
        allowed = f"one of {', '.join(known)}{near(name, known)}"
        require(name in known, "parameter", name, allowed)
    return CLAIMS[claim].predict(**inputs)
