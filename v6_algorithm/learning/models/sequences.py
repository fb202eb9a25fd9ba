"""Networks for time series."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from v6_algorithm.experiment import MLP, Recurrent
from v6_algorithm.learning.models.normalisation import norm_layers
from v6_algorithm.learning.models.tabular import build_model

_CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}


class RecurrentNetwork(nn.Module):
    """Windows of a series, encoded one by one, through a GRU or LSTM; the mean over time goes into a small MLP.

    With ``{kind: lstm, window: 10, encoder: 256, hidden: 192, head: [256, 64], dropout: 0.25, norm: batch}`` and 100
    channels it has the shape, and the 1,063,106 parameters, of coinstac-dinunet's ICA-LSTM.
    """

    def __init__(self, model: Recurrent, channels: int, outputs: int, *, padded: bool = False) -> None:
        super().__init__()
        self.padded = padded
        self.window, self.stride = model.window, model.stride or model.window
        width = channels * model.window
        encoder = [] if model.encoder is None else [nn.Linear(width, model.encoder), nn.ReLU()]
        self.encoder = nn.Sequential(*encoder)
        self.recurrent = _CELLS[model.kind](
            model.encoder or width,
            model.hidden,
            num_layers=model.layers,
            batch_first=True,
            bidirectional=model.bidirectional,
        )
        self.dropout = nn.Dropout(model.dropout)
        # The reference has its norm behind the first layer of the head only.
        width = model.hidden * (2 if model.bidirectional else 1)
        first, rest = model.head[:1], model.head[1:]
        self.head = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(width, width_out), *norm_layers(model.norm, width_out), nn.ReLU())
                for width_out in first
            ),
            build_model(MLP(hidden=rest, norm="none"), first[0] if first else width, outputs),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (rows, time, channels) to (rows, outputs); times behind the last whole window are left out.

        Where rows are `padded`, NaN begins behind a row's end: its output is what it would be without.
        """
        if self.padded:
            return self._forward_padded(inputs)
        windows = inputs.unfold(1, self.window, self.stride).flatten(2)
        states, _ = self.recurrent(self.encoder(windows))
        output: Tensor = self.head(self.dropout(states.mean(dim=1)))
        return output

    def _forward_padded(self, inputs: Tensor) -> Tensor:
        times = (~inputs.isnan().any(dim=2)).sum(dim=1)
        steps = torch.div(times - self.window, self.stride, rounding_mode="floor") + 1
        windows = inputs.nan_to_num(nan=0.0).unfold(1, self.window, self.stride).flatten(2)
        # Packed, the reverse direction begins at each row's own end.
        packed = pack_padded_sequence(self.encoder(windows), steps.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
        # Behind a row's end the states are 0.
        mean = states.sum(dim=1) / steps[:, None]
        output: Tensor = self.head(self.dropout(mean))
        return output
