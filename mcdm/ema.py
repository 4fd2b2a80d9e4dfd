"""Exponential moving average of the weights that learn, in float32."""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


class Ema:
    """Shadow copies of a model's trainable parameters. Update n averages at min(decay, (1 + n) / (10 + n))."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.shadow = {n: p.detach().clone().float() for n, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the shadows towards the weights by one step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        live = dict(model.named_parameters())
        shadows = list(self.shadow.values())
        torch._foreach_lerp_(shadows, [live[name].detach().float() for name in self.shadow], 1 - decay)

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchange the averages with the model's weights, to the bit; a second call puts both back."""
        live = dict(model.named_parameters())
        for name, shadow in self.shadow.items():
            held = live[name].detach().clone()
            live[name].copy_(shadow)
            shadow.copy_(held)

    def state_dict(self) -> dict[str, Tensor | int]:
        """Shadows by parameter name, and the number of updates."""
        return {**self.shadow, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Take over what `state_dict` gave; raises `ValueError` if the parameters are others."""
        missing = sorted(set(self.shadow) ^ (set(state) - {"updates"}))
        if missing:
            raise ValueError(f"the averaged weights differ in {missing[0]} ({len(missing)} differ)")
        for name, shadow in self.shadow.items():
            value = state[name]
            assert isinstance(value, Tensor)
            value = value.to(shadow.device)
            if isinstance(shadow, DTensor):
                value = distribute_tensor(value, shadow.device_mesh, shadow.placements)
            shadow.copy_(value)
        updates = state["updates"]
        assert isinstance(updates, int)
        self.updates = updates
