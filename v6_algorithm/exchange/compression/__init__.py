"""Making a site's update smaller before it is sent, and whole again where it arrives.

`site` encodes and `strategies` decodes, both with a `Compressor` made from the experiment. What a site has to remember
from round to round is handed in and out, and losing it only costs accuracy.
"""

from v6_algorithm.exchange.compression.compressor import Compressor, create_compressor

__all__ = ["Compressor", "create_compressor"]
