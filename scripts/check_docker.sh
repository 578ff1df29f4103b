#!/usr/bin/env bash
# Builds the image without a container engine, then prepares data, trains and tests in it.
#
#   apt-get install buildah debootstrap
#   scripts/check_docker.sh             # as root; 15 GB of disk
#   KEEP=1 scripts/check_docker.sh      # keep the images; the next run starts from the same plain base
#
# The base is a stand-in for python:3.13-slim-trixie made from Debian's packages, so no image
# registry is needed. dllogger is omitted (--build-arg DLLOGGER=), so GitHub is not needed either. Then
# the image is built again on a base that already has TensorFlow and Horovod, like NVIDIA's, to check
# that neither is replaced.
#
# The builds use this machine's package registries: pip's index and certificates from `pip config` and
# the environment, the http proxy of the environment, and DEBIAN_MIRROR. After a failure the work folder
# is kept for inspection; the next run starts from the plain base in it.
set -euo pipefail
cd "$(dirname "$0")/.."

work=${WORK_DIR:-/var/tmp/vae-check-docker}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
bundle=/etc/ssl/certs/ca-certificates.crt
storage=(--root "$work/storage" --runroot "$work/run" --storage-driver vfs)
# Mounted, so that no image contains them.
registries=(--volume "$work/pip.conf:/etc/pip.conf:ro" --volume "${PIP_CERT:-$bundle}:$bundle:ro")
container= # current working container

main() {
    mkdir -p "$work"
    trap 'on_exit' EXIT
    pip_configuration >"$work/pip.conf"
    # Leftovers of an interrupted run.
    buildah "${storage[@]}" rm --all >/dev/null
    buildah "${storage[@]}" rmi --prune >/dev/null
    have python-base || make_python_base

    say "Building on plain Python"
    build vae-cpu python-base
    check_metadata vae-cpu
    enter vae-cpu
    check_user
    check_recipe
    leave

    say "Building on a base that has TensorFlow and Horovod"
    make_tensorflow_base
    build vae-gpu tensorflow-base
    check_base_unchanged
    say "The image builds on both bases, and trains"
    finished=1
}

# --- images -----------------------------------------------------------------------------------------

# Debian's Python under the paths of Docker's image: /usr/local/bin/python, with pip beside it.
make_python_base() {
    say "Making the plain base from Debian's packages"
    rm -rf "$work/rootfs"
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv \
        trixie "$work/rootfs" "$mirror" >"$work/debootstrap.log"
    chroot "$work/rootfs" python3 -m venv /usr/local
    enter scratch
    buildah "${storage[@]}" add --quiet "$container" "$work/rootfs" / >/dev/null
    buildah "${storage[@]}" config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        --cmd python3 "$container"
    commit python-base
    rm -rf "$work/rootfs"
}

# Like NVIDIA's base: TensorFlow and Horovod are installed, in its own versions; a package that the
# recipe needs is missing.
make_tensorflow_base() {
    enter vae-cpu
    inside_as_root userdel --remove vae
    inside_as_root python -m pip uninstall --quiet --yes pyarrow
    inside_as_root python -m pip install --quiet numpy==2.2.5
    buildah "${storage[@]}" config --user root "$container"
    commit tensorflow-base
}

build() { # image, base
    buildah "${storage[@]}" build --isolation chroot --pull-never "${registries[@]}" \
        --format docker --build-arg "FROM_IMAGE_NAME=localhost/$2" --build-arg DLLOGGER= --tag "localhost/$1" .
}

# --- checks -----------------------------------------------------------------------------------------

# No entry point: `docker run -it vae /bin/bash` and `docker run vae python main.py --help` must work.
check_metadata() { # image
    local config
    config=$(buildah "${storage[@]}" inspect --type image --format \
        '{{.Docker.Config.User}} {{.Docker.Config.Entrypoint}} {{.Docker.Config.Cmd}} {{.Docker.Config.Volumes}} {{.Docker.Config.WorkingDir}}' \
        "localhost/$1")
    expect "user, entry point, command, volume and folder" \
        "1000 [] [/bin/bash] map[/data:{}] /workspace/vae" "$config"
}

check_user() {
    expect "the user" vae "$(inside id -un)"
    grep -q -- --train <<<"$(inside python main.py --help)" || fail "--help does not list --train"
    inside touch /data/writable || fail "the user cannot write to /data"
    inside bash -c '! command -v g++' >/dev/null || fail "the compiler is still installed"
    # As with `docker run -it`: a terminal whose shell reads commands from it.
    local session
    session=$(buildah "${storage[@]}" run --isolation chroot --tty "$container" /bin/bash \
        <<<"python main.py --version; exit")
    grep -q '^main.py [0-9]' <<<"$session" || fail "/bin/bash on a terminal does not run main.py: $session"
}

check_recipe() {
    local flags="--dataset synthetic --epochs 20 --batch_size_train 512 --validation_step 10 --lr 0.001"
    say "Preparing, training and testing in the container, then with two workers"
    inside python prepare_dataset.py --dataset synthetic
    # shellcheck disable=SC2086 # a list of words
    inside python main.py --train --test $flags --checkpoint_dir /data/checkpoints --log_path /data/log
    # shellcheck disable=SC2086
    inside mpirun --allow-run-as-root -np 2 --host localhost:2 --bind-to none \
        python main.py --train --test $flags --log_path /data/log2
}

# No installed package has changed; the missing one is installed.
check_base_unchanged() {
    enter tensorflow-base
    inside_as_root bash -c "$inventory" >"$work/before.txt"
    leave
    enter vae-gpu
    inside_as_root bash -c "$inventory" >"$work/after.txt"
    inside python main.py --help >/dev/null
    leave
    local changes
    changes=$(diff "$work/before.txt" "$work/after.txt" | grep '^[<>]' || true)
    expect "added packages" "> pyarrow==$(sed -n 's/^pyarrow==//p' requirements.txt)" "$changes"
    grep -q '^numpy==2.2.5' "$work/after.txt" || fail "numpy was replaced"
}
# shellcheck disable=SC2016 # expanded by the container's shell
inventory='python -m pip list --format=freeze --disable-pip-version-check
    for name in tensorflow horovod numpy; do
        folder=$(python -c "import importlib.util as u; print(u.find_spec(\"$name\").submodule_search_locations[0])")
        find "$folder" -name "*.so*" -type f -print0 | sort -z | xargs -0 sha256sum
    done'

# --- tools ------------------------------------------------------------------------------------------

pip_configuration() {
    echo "[global]"
    echo "cert = $bundle"
    local index=${PIP_INDEX_URL:-$(python3 -m pip config get global.index-url 2>/dev/null || true)}
    [ -z "$index" ] || echo "index-url = $index"
}

have() { buildah "${storage[@]}" inspect --type image "localhost/$1" >/dev/null 2>&1; }

enter() { # image
    container=$(buildah "${storage[@]}" from --pull-never "$([ "$1" = scratch ] || echo localhost/)$1")
}

# As the image's user.
inside() { buildah "${storage[@]}" run --isolation chroot "$container" -- "$@"; }

inside_as_root() {
    buildah "${storage[@]}" run --isolation chroot "${registries[@]}" --user root "$container" -- "$@"
}

commit() { # image
    buildah "${storage[@]}" commit --quiet --format docker "$container" "localhost/$1" >/dev/null
    leave
}

leave() {
    buildah "${storage[@]}" rm "$container" >/dev/null
    container=
}

expect() { # what, expected, actual
    [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"
    echo "ok: $1: ${3:-none}"
}

say() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

fail() {
    echo "check_docker.sh: error: $1" >&2
    exit 1
}

on_exit() {
    [ -z "$container" ] || buildah "${storage[@]}" rm "$container" >/dev/null || true
    if [ -n "${finished:-}" ] && [ -z "${KEEP:-}" ]; then
        rm -rf "$work"
    else
        echo "Work folder kept: $work"
    fi
}

main
