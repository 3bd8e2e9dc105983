"""Settings that both drawing and training know: quick to import, since a command line shows them without PyTorch."""

from dataclasses import dataclass, replace

from agr_utils.errors import InputError

BALANCINGS = ("fixed", "uncertainty")  # of the tasks' losses, see agr_utils.training.losses


@dataclass(frozen=True)
class SyntheticSettings:
    """The three dials, each in [0, 1]."""

    #: Of the cues: the age cue is off by a Gaussian of ``50 * noise`` years, a badge has the other shape with
    #: probability ``noise / 2``, a shirt another pattern with probability ``noise``.
    noise: float = 0.1
    #: Probability with which each label follows one hidden number that all three share. At 0 the labels are
    #: independent; at 1 they are three views of the same thing, so that what helps one task helps all.
    relatedness: float = 0.0
    #: In the training split the collar is light for gender 1 and dark for gender 0 with this probability; in the other
    #: splits it is random. A network may learn this shortcut and fail in the test.
    confounding: float = 0.0

    def __post_init__(self):
        for name in ("noise", "relatedness", "confounding"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")

    @property
    def age_sigma(self) -> float:
        """Standard deviation of the age cue, in years."""
        return 50 * self.noise


@dataclass(frozen=True)
class Augmentation:
    """How strongly a batch is changed; zeros change nothing."""

    flip: float = 0.5  #: probability of mirroring
    affine: float = 0.5  #: probability of being rotated, scaled and shifted. It blurs, so some faces are left sharp
    rotation: float = 8.0  #: largest angle, degrees
    scale: float = 0.1  #: largest relative change of size
    translation: float = 0.05  #: largest shift, share of the side
    colour: float = 0.15  #: largest relative change of brightness, contrast and saturation
    erase: float = 0.1  #: probability that a random rectangle is blanked (Zhong et al. 2020)

    def scaled(self, factor: float) -> "Augmentation":
        """The same with everything but mirroring weakened (or strengthened) by a factor."""
        names = ("rotation", "scale", "translation", "colour", "erase")
        return replace(self, **{name: factor * getattr(self, name) for name in names})
