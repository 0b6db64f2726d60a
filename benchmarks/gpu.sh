#!/usr/bin/env bash
# Speed and memory of edits at the size of Llama-3-8B (random weights): a JSON file and a Markdown table in
# outputs/gpu, within ten minutes, installation included.
#
#   benchmarks/gpu.sh                        a CUDA machine with torch
#   EASYEDIT_HOME=/path/to/EasyEdit benchmarks/gpu.sh
#   benchmarks/gpu.sh --tiny                 the same program at a tiny shape on a CPU
#   PYTHON=python3.12 benchmarks/gpu.sh --out results/gpu
#
# Where the Python has all that the package needs it is used as it is. Otherwise the plain dependencies go into
# .venv-gpu, which sees that Python's packages, torch among them, and installs no other torch.
set -euo pipefail
LIMIT=600
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

has() { "$PYTHON" -c 'import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, sys.argv[1:])))' "$@" 2>/dev/null; }

if ! has torch; then
  echo "benchmarks/gpu.sh: $PYTHON has no torch; PYTHON=... names one that has" >&2
  exit 2
fi
if ! has transformers peft accelerate hydra safetensors yaml tqdm; then
  echo "installing the package's dependencies into .venv-gpu"
  [ -x .venv-gpu/bin/python ] || "$PYTHON" -m venv .venv-gpu
  # Not --system-site-packages: of a virtual environment that would be the Python below it, without torch.
  site=$(.venv-gpu/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  "$PYTHON" -c 'import sys; print(*(p for p in sys.path if p.endswith("-packages")), sep="\n")' > "$site/torch.pth"
  "$PYTHON" -c 'import torch; print(f"torch=={torch.__version__}")' > .venv-gpu/constraints.txt
  grep -v '^torch==' constraints.txt >> .venv-gpu/constraints.txt
  PYTHON=.venv-gpu/bin/python
  if ! timeout 240 "$PYTHON" -m pip install --quiet --disable-pip-version-check -c .venv-gpu/constraints.txt -e .; then
    echo "benchmarks/gpu.sh: the dependencies of setup.cfg cannot be installed into .venv-gpu" >&2
    exit 2
  fi
fi

# The program keeps to its time itself, and has both files after every cell; this is for a GPU that hangs.
left=$((LIMIT - SECONDS - 20))
status=0
timeout --kill-after=10 "$((left + 10))" "$PYTHON" -m benchmarks.gpu --seconds "$left" "$@" || status=$?
if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
  echo "benchmarks/gpu.sh: stopped after $SECONDS s; the files have the cells that were measured" >&2
fi
exit "$status"
