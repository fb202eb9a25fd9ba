"""Networks for time series."""

from __future__ import annotations

from torch import Tensor, nn

from v6_algorithm.experiment import MLP, Recurrent
from v6_algorithm.models.tabular import build_model, norm_layers

_CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}


class RecurrentNetwork(nn.Module):
    """Windows of a series, encoded one by one, through a GRU or LSTM; the mean over time goes into a small MLP.

    With ``{kind: lstm, window: 10, encoder: 256, hidden: 192, head: [256, 64], dropout: 0.25, norm: batch}`` and 100
    channels it has the shape, and the 1,063,106 parameters, of coinstac-dinunet's ICA-LSTM.
    """

    def __init__(self, model: Recurrent, channels: int, outputs: int) -> None:
        super().__init__()
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
            *(nn.Sequential(nn.Linear(width, own), *norm_layers(model.norm, own), nn.ReLU()) for own in first),
            build_model(MLP(hidden=rest, norm="none"), first[0] if first else width, outputs),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (rows, time, channels) to (rows, outputs); times behind the last whole window are left out."""
        windows = inputs.unfold(1, self.window, self.stride).flatten(2)
        states, _ = self.recurrent(self.encoder(windows))
        output: Tensor = self.head(self.dropout(states.mean(dim=1)))
        return output
