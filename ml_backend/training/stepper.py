"""One optimiser step on a batch of crops, in as many pieces as the memory asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import structlog
import torch
from torch import Tensor, nn

from ml_backend.engines.residual_unet import ResidualUNet
from ml_backend.errors import OutOfMemory, TrainingError
from ml_backend.recipes import Recipe
from ml_backend.training.crops import Batch
from ml_backend.training.losses import weighted_loss
from ml_backend.training.precision import FORMATS

log = structlog.get_logger(__name__)

MOST_SKIPPED: Final = 10  # steps in a row whose gradient is not finite
NO_MEMORY: Final = ("out of memory", "can't allocate memory")  # what torch says for the CPU's, too

Answer = TypeVar("Answer")


class Stepper:
    """Owns the optimiser; the batch of a step is computed in pieces of `piece` crops."""

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        *,
        device: torch.device,
        precision: str,
        piece: int,
    ) -> None:
        """Take the weights of `network` that ask for gradients.

        Args:
            network: on `device`, float32.
            recipe: says how to step.
            device: where the network is.
            precision: a key of `precision.FORMATS`.
            piece: crops that are computed at once, at most the batch.
        """
        self._network = network
        self._recipe = recipe
        self._device = device
        self._format = FORMATS[precision]
        self._layout = (
            torch.channels_last if isinstance(network, ResidualUNet) else torch.contiguous_format
        )
        network.to(memory_format=self._layout)
        self._weights = [weight for weight in network.parameters() if weight.requires_grad]
        self.optimiser = torch.optim.AdamW(
            [
                {
                    "params": [weight for weight in self._weights if weight.ndim > 1],
                    "weight_decay": recipe.weight_decay,
                },
                {"params": [w for w in self._weights if w.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=recipe.learning_rate,
            fused=device.type in ("cpu", "cuda"),
        )
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._format == torch.float16)
        self.piece = piece
        self.skipped = 0  # steps in a row whose gradient was not finite

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps besides weights and averages; JSON can hold it."""
        return {"piece": self.piece, "skipped": self.skipped, "scaler": self._scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.piece, self.skipped = int(state["piece"]), int(state["skipped"])
        self._scaler.load_state_dict(state["scaler"])

    def step(self, batch: Batch, learning_rate: float) -> float:
        """Learn from a batch; return its loss.

        Raises:
            OutOfMemory: a single crop does not fit.
            TrainingError: the numbers have run away.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self._network.train()
        loss = self._with_less_memory(lambda: self._gradient(batch), len(batch.images))
        self._scaler.unscale_(self.optimiser)
        norm = float(nn.utils.clip_grad_norm_(self._weights, self._recipe.clip_norm))
        if math.isfinite(norm) and math.isfinite(loss):
            self.skipped = 0
            self._scaler.step(self.optimiser)
        else:
            self.skipped += 1
        self._scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        if self.skipped >= MOST_SKIPPED:
            raise TrainingError(
                f"The training ran away at step {batch.step + 1}: its numbers are no longer "
                f"finite. Set a smaller learning rate than {self._recipe.learning_rate:g}."
            )
        return loss

    def loss_of(self, batch: Batch) -> float:
        """Return the loss of a batch without learning from it.

        Raises:
            OutOfMemory: a single crop does not fit.
        """
        self._network.eval()
        with torch.no_grad():
            return self._with_less_memory(lambda: self._plain_loss(batch), len(batch.images))

    def _gradient(self, batch: Batch) -> float:
        # what a network draws (dropped layers) depends on the step, not on what was drawn before
        torch.manual_seed(self._recipe.seed * 1_000_003 + batch.step)
        self.optimiser.zero_grad(set_to_none=True)
        total = max(1.0, float(batch.targets[:, 3].sum()))
        loss = 0.0
        for images, targets in self._pieces(batch):
            part = weighted_loss(self._answer(images), targets) / total
            self._scaler.scale(part).backward()  # type: ignore[no-untyped-call]
            loss += part.item()
        return loss

    def _plain_loss(self, batch: Batch) -> float:
        total = max(1.0, float(batch.targets[:, 3].sum()))
        parts = (
            float(weighted_loss(self._answer(images), targets))
            for images, targets in self._pieces(batch)
        )
        return sum(parts) / total

    def _answer(self, images: Tensor) -> Tensor:
        enabled = self._format != torch.float32
        with torch.autocast(self._device.type, dtype=self._format, enabled=enabled):
            answer: Tensor = self._network(images)[0]
        return answer

    def _pieces(self, batch: Batch) -> Sequence[tuple[Tensor, Tensor]]:
        def moved(tensor: Tensor) -> Sequence[Tensor]:
            there = tensor.to(self._device, non_blocking=True)
            return torch.split(there.to(memory_format=self._layout), self.piece)

        return list(zip(moved(batch.images), moved(batch.targets), strict=True))

    def _with_less_memory(self, work: Callable[[], Answer], crops: int) -> Answer:
        """Return what `work` does; where memory runs out, halve the pieces and do it again."""
        while True:
            try:
                return work()
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                said = str(error)
            # outside the handler: the error holds the frames, and with them the tensors
            self.optimiser.zero_grad(set_to_none=True)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            fitting = min(self.piece, crops)
            if fitting <= 1:
                raise OutOfMemory(
                    f"A single crop of {self._recipe.crop} pixels does not fit the memory of "
                    f"{self._device}; train adapters only (model_lora_rank) or use another device."
                )
            self.piece = fitting // 2
            log.warning("out of memory, the batch is halved", crops=self.piece, said=said)


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in NO_MEMORY)
