#!/usr/bin/env bash
# Every GPU test and benchmark, from a bare checkout, in one command and under nine minutes on a recent GPU:
#
#   OUT=FOLDER bash benchmarks/gpu.sh [STAGE...]  results go to FOLDER, or to benchmarks/results
#   QUICK=1 OUT=FOLDER bash benchmarks/gpu.sh     a trial of the script, tiny sizes, also without a GPU
#
# It needs the machine's own Python 3.10-3.12 with PyTorch, and no network: packages that are missing are taken from
# wheels in .whl/ (pip download puts them there) and kept in build/gpu, beside the package itself.
# Each stage writes its file at once, and is skipped when its file is there: run it again to go on where it stopped.
set -uo pipefail
cd "$(dirname "$0")/.."

out=${OUT:-benchmarks/results}
quick=(${QUICK:+--quick})
python=${PYTHON:-python3}
site=$PWD/build/gpu/site
stages=("$@")
((${#stages[@]})) || stages=(
    tests gpu-step gpu-breakdown gpu-attention gpu-kernels gpu-edit gpu-compiled gpu-pairs gpu-quality gpu-compiled-ours
)
mkdir -p "$out" "$site"
[[ $out = /* ]] || out=$PWD/$out
# `python -m` would put the checkout itself before the package that is built from it
export PYTHONPATH=$site PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
pip=("$python" -m pip install --disable-pip-version-check --no-index --no-deps --no-compile --upgrade --target "$site")

install() {
    if compgen -G ".whl/*.whl" >/dev/null; then "${pip[@]}" --quiet .whl/*.whl || return; fi
    # only for the GPU that is here: three architectures take three times as long
    TORCH_CUDA_ARCH_LIST=$("$python" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())' 2>/dev/null)
    if [[ -n $TORCH_CUDA_ARCH_LIST ]]; then export TORCH_CUDA_ARCH_LIST; else unset TORCH_CUDA_ARCH_LIST; fi
    IP2P_FAST_BUILD=${IP2P_FAST_BUILD:-auto} "${pip[@]}" --verbose --no-build-isolation . >"$out/install.log" 2>&1
}

run_tests() {
    [[ -e $out/gpu-tests.log ]] && return
    local workers=()
    "$python" -c 'import xdist' 2>/dev/null && workers=(-n 6)
    timeout 240 "$python" -m pytest -m gpu -p no:cacheprovider "${workers[@]}" tests/gpu tests/kernels/test_on_gpu.py \
        2>&1 | tee "$out/gpu-tests-failed.log"
    local status=${PIPESTATUS[0]}
    # 5: there was no test to run
    if ((status == 0 || status == 5)); then mv "$out/gpu-tests-failed.log" "$out/gpu-tests.log"; else return "$status"; fi
}

measure() {
    [[ -e $out/$1.json ]] || timeout 180 "$python" -m ip2p_fast.cli bench "$1" --out "$out" "${quick[@]}" --debug
}

failed=()
stage() {
    local start=$SECONDS
    "$@" || failed+=("$*")
    printf -- '-- %s: %d s\n' "$*" $((SECONDS - start))
}

stage install
((${#failed[@]})) && exit 1
"$python" -m ip2p_fast.cli info
for name in "${stages[@]}"; do
    if [[ $name = tests ]]; then stage run_tests; else stage measure "$name"; fi
done
if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
