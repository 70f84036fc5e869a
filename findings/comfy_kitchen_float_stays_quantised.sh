#!/usr/bin/env bash
# comfy-kitchen 0.2.31 with torch 2.13.0, CPU.
#
# `QuantizedTensor.float()` and `.to(torch.float32)` give a tensor whose `dtype` says float32 and
# which still is codes: a product with float32 inputs rounds the inputs to 8 bits where the layout
# is int8. Code that checks `weight.dtype` and then multiplies gets other numbers than with the
# weight that `dequantize()` gives; the same product over fp8 codes is exact.
#
# Seen: float() of int8 and fp8 weights is a QuantizedTensor of dtype torch.float32; relative
# difference of the product to the one with the dequantised weight 0.006 to 0.008 for int8, below
# 1e-6 for fp8.
set -euo pipefail
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/python" -m pip install --quiet torch==2.13.0 numpy==2.4.6 comfy-kitchen==0.2.31 packaging==26.3
"$place/env/bin/python" - <<'PY'
import torch
from comfy_kitchen.tensor import QuantizedTensor

torch.manual_seed(0)
weight, x = torch.randn(64, 64), torch.randn(8, 64)
differences = {}
for layout in ("TensorWiseINT8Layout", "TensorCoreFP8Layout"):
    codes = QuantizedTensor.from_float(weight, layout)
    cast = codes.float()
    plain = cast.dequantize()
    print(layout, "float() ->", type(cast).__name__, cast.dtype,
          "; dequantize() ->", type(plain).__name__, plain.dtype)
    assert type(cast) is QuantizedTensor and cast.dtype is torch.float32
    assert type(codes.to(torch.float32)) is QuantizedTensor
    assert type(plain) is torch.Tensor
    wanted = torch.nn.functional.linear(x, plain)
    found = torch.nn.functional.linear(x, cast)
    differences[layout] = float((found - wanted).norm() / wanted.norm())
    print(layout, "product off by", differences[layout])
assert 0.003 < differences["TensorWiseINT8Layout"] < 0.02
assert differences["TensorCoreFP8Layout"] < 1e-6
print("As described.")
PY
