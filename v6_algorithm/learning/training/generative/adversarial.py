"""Two networks that train against each other, one round at one site: a generator, and a judge of what it makes.

Non-saturating logistic loss, a classifier of real and of synthetic images, a penalty R1 on the discriminator's slope at
real images, adaptive augmentation of all that it sees, and the average over the generator's steps (EMA) that images are
made with.

References
----------
Goodfellow et al., Generative Adversarial Nets, NeurIPS 2014: the loss.
Mescheder et al., Which Training Methods for GANs do actually Converge?, ICML 2018: R1.
Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020: the penalty once in some batches.
Karras et al., Training Generative Adversarial Networks with Limited Data, NeurIPS 2020: the augmentation.
Hou et al., Conditional GANs with Auxiliary Discriminative Classifier, ICML 2022: classes told apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from v6_algorithm.errors import SiteError
from v6_algorithm.experiment import GanOptions, Training
from v6_algorithm.learning.models.generators.layers import Discriminator
from v6_algorithm.learning.training.freezing import trained
from v6_algorithm.learning.training.generative.differentiable_augmentation import augment
from v6_algorithm.learning.training.learner import TrainingContext, optimiser_of

if TYPE_CHECKING:
    from v6_algorithm.learning.problems.base import Networks

# Batches over which the mean sign of the discriminator is taken before p moves, and the most that p may be: above, the
# generator begins to make changed images (Karras et al. 2020).
_SIGN_BATCHES = 4
_MOST_P = 0.8


class Adversaries:
    """The learner of a generative problem; see `learner.Learner`.

    Parameters
    ----------
    networks
        ``generator``, ``discriminator`` (a `Discriminator`) and ``ema``, trained in place.
    options
        The problem's options.
    training
        For the optimiser, of which each network has one.
    classes
        Number of classes that the networks are told; 0: none.
    context
        Whose round it is: latents and changes are drawn for it.
    """

    def __init__(
        self, networks: Networks, options: GanOptions, training: Training, classes: int, context: TrainingContext
    ) -> None:
        discriminator = networks["discriminator"]
        assert isinstance(discriminator, Discriminator)  # noqa: S101 (problems.gan builds it)
        self._generator, self._discriminator, self._ema = networks["generator"], discriminator, networks["ema"]
        self._options, self._classes, self._device = options, classes, context.device
        self._latents, self._changes = context.generator("latents"), context.generator("discriminator's augmentation")
        self._of_generator, self._of_discriminator = (
            trained({name: networks[name]}, context.frozen) for name in ("generator", "discriminator")
        )
        if not (self._of_generator and self._of_discriminator):
            raise SiteError("training.freeze leaves one of the networks nothing to learn, and each must", "request")
        self._steps_generator = optimiser_of(training, self._of_generator, context)
        self._steps_discriminator = optimiser_of(
            training, self._of_discriminator, context, lr_factor=options.discriminator_lr
        )
        counts = self._discriminator
        self.p, self._images, self._steps = counts.augment_p.item(), counts.images.item(), int(counts.steps.item())
        if options.augment is not None and not self._images:
            self.p = options.augment.probability
        self._signs: list[Tensor] = []
        self._since = 0

    def step(self, inputs: Tensor, target: Tensor) -> Tensor:
        """Let the discriminator learn from a batch of images from 0 to 1, then the generator from it.

        Both losses are added up. The generator makes images of the batch's own classes.
        """
        classes = one_hot(target, self._classes, inputs.dtype)
        latents = torch.randn(len(inputs), self._options.latent, generator=self._latents)
        with self._device.forward():
            made = self._generator(latents.to(inputs), classes)
        made = self._device.full(made)
        loss = self._teach_discriminator(2 * inputs - 1, made.detach(), classes)
        loss = loss + self._teach_generator(made, classes)
        self._average(len(inputs))
        self._images += len(inputs)
        self._steps += 1
        return loss

    def finish(self) -> None:
        """Leave the counts, and how much is augmented, with the discriminator."""
        self._adapt()
        counts = self._discriminator
        for buffer, value in ((counts.augment_p, self.p), (counts.images, self._images), (counts.steps, self._steps)):
            buffer.fill_(value)

    def _teach_discriminator(self, real: Tensor, made: Tensor, classes: Tensor) -> Tensor:
        """Take the discriminator's step; return its loss without the penalty, summed and detached."""
        real, made = self._seen(real), self._seen(made)
        (of_real, told_real), (of_made, told_made) = self._judge(real, classes), self._judge(made, classes)
        losses = functional.softplus(-of_real) + functional.softplus(of_made)
        total = losses.mean()
        if told_real is not None and told_made is not None:
            total = total + self._options.classify * classification_loss(told_real, told_made, classes)
        every = self._options.r1_every
        if self._options.r1 and self._steps % every == 0:
            total = total + every * self._options.r1 / 2 * r1_penalty(self._discriminator, real, classes).mean()
        self._steps_discriminator.zero_grad(set_to_none=True)
        total.backward(inputs=self._of_discriminator)
        self._steps_discriminator.step()
        self._signs.append(of_real.detach().sign().mean())
        self._since += len(real)
        if len(self._signs) == _SIGN_BATCHES:
            self._adapt()
        return losses.detach().sum()

    def _teach_generator(self, made: Tensor, classes: Tensor) -> Tensor:
        """Take the generator's step; return its loss, summed and detached."""
        output, class_logits = self._judge(self._seen(made), classes)
        losses = functional.softplus(-output)
        total = losses.mean()
        if class_logits is not None:
            total = total - self._options.classify * advantage(class_logits, classes).mean()
        self._steps_generator.zero_grad(set_to_none=True)
        # Not the discriminator, which would gather what it is not to learn.
        total.backward(inputs=self._of_generator)
        self._steps_generator.step()
        return losses.detach().sum()

    def _judge(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor | None]:
        with self._device.forward():
            output, class_logits = self._discriminator.judge(images, classes)
        return self._device.full(output), self._device.full(class_logits)

    def _seen(self, images: Tensor) -> Tensor:
        """Return images as the discriminator sees them."""
        section = self._options.augment
        return images if section is None else augment(images, self.p, section.kinds, self._changes)

    def _adapt(self) -> None:
        """Move p by the images since it moved last: up where the discriminator is too sure of real ones, else down."""
        section = self._options.augment
        if section is not None and section.target is not None and self._signs:
            sure = torch.stack(self._signs).mean().item() > section.target
            moved = self._since / section.length
            self.p = min(max(self.p + (moved if sure else -moved), 0.0), _MOST_P)
        self._signs, self._since = [], 0

    @torch.no_grad()
    def _average(self, rows: int) -> None:
        """Let the average follow the generator's step by so many images."""
        half_life = self._options.ema_images
        if self._options.ema_rampup is not None:
            half_life = min(half_life, self._options.ema_rampup * (self._images + rows))
        share = 1 - ema_decay(rows, half_life)
        for mean, value in zip(self._ema.parameters(), self._generator.parameters(), strict=True):
            mean.lerp_(value, share)
        for buffer, newest in zip(self._ema.buffers(), self._generator.buffers(), strict=True):
            buffer.copy_(newest)


def classification_loss(real: Tensor, made: Tensor, classes: Tensor) -> Tensor:
    """Return the mean cross-entropy of telling of what class an image is, and whether it is made.

    `real` and `made` are (rows, 2 classes) outputs for real and for synthetic images, `classes` (rows, classes) ones
    and zeros; the first half of the outputs is for real images.
    """
    nothing = torch.zeros_like(classes)
    of_real = functional.cross_entropy(real, torch.cat([classes, nothing], dim=1))
    return (of_real + functional.cross_entropy(made, torch.cat([nothing, classes], dim=1))) / 2


def advantage(class_logits: Tensor, classes: Tensor) -> Tensor:
    """Return how much more synthetic images look like real ones of their class than like made ones of it, (rows,).

    It is the logarithm of the two probabilities' ratio. Without the second term images would be of their class beyond
    what real ones are, and all alike.
    """
    real, made = class_logits.chunk(2, dim=1)
    return ((real - made) * classes).sum(dim=1)


def one_hot(target: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """Return (rows, classes) ones and zeros; without columns where there are no classes."""
    if not classes:
        return torch.zeros(len(target), 0, dtype=dtype, device=target.device)
    return functional.one_hot(target, classes).to(dtype)


def ema_decay(rows: int, half_life: float) -> float:
    """Return what is left of an average after so many images, half of it after `half_life`."""
    return float(0.5 ** (rows / half_life))


def r1_penalty(discriminator: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Return the squared norm of the discriminator's slope at each image, (rows,), in full precision."""
    images = images.detach().requires_grad_(True)
    with torch.autocast(images.device.type, enabled=False):
        output = discriminator(images, classes)
        (slope,) = torch.autograd.grad(output.sum(), images, create_graph=True)
    squares: Tensor = slope.square().sum(dim=(1, 2, 3))
    return squares
