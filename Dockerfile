# One file for two bases:
#
#   docker build . -t vae                                                          # NVIDIA GPUs
#   docker build . -t vae --build-arg FROM_IMAGE_NAME=python:3.13-slim-trixie    # CPUs alone
ARG FROM_IMAGE_NAME=nvcr.io/nvidia/tensorflow:25.02-tf2-py3
# The base is the builder's choice, and each default carries its own tag.
# hadolint ignore=DL3006
FROM ${FROM_IMAGE_NAME}

# Ubuntu reserves its Python for its own packages; in a container it is ours.
ENV PIP_BREAK_SYSTEM_PACKAGES=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONPATH=/workspace/vae${PYTHONPATH:+:$PYTHONPATH} \
    PYTHONUNBUFFERED=1

WORKDIR /workspace/vae

# What changes least comes first. NVIDIA's base has its own builds of TensorFlow, Horovod, NCCL and MPI:
# there, everything installed is held at its version, and only what is missing is added. A plain base
# gets the pinned versions.
COPY requirements.txt ./
RUN if python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("tensorflow") is None)'; then \
        python -m pip list --format=freeze > /tmp/installed.txt \
        && awk -F== 'NR == FNR { have[tolower($1)]; next } /^[a-z]/ && !/^tensorflow/ && !($1 in have)' \
            /tmp/installed.txt requirements.txt > /tmp/missing.txt \
        && python -m pip install -c /tmp/installed.txt -r /tmp/missing.txt \
        && rm /tmp/installed.txt /tmp/missing.txt; \
    else \
        python -m pip install -r requirements.txt; \
    fi

# A plain base also gets a Horovod, built against that TensorFlow; neither the compiler nor the built wheel
# is kept. Debian drops old versions of its packages, so those are not pinned.
COPY requirements-horovod.txt ./
COPY scripts/install_horovod.sh scripts/
# hadolint ignore=DL3008
RUN if python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("horovod") is not None)'; then \
        apt-get update \
        && apt-get install -y --no-install-recommends g++ make openssh-client \
        && XDG_CACHE_HOME=/tmp/cache scripts/install_horovod.sh "$(command -v python)" \
        && apt-get purge -y --auto-remove g++ make \
        && rm -rf /tmp/cache /var/lib/apt/lists/*; \
    fi

# `--build-arg DLLOGGER=` leaves dllogger out, where GitHub is out of reach: then a module of the recipe
# writes the same lines.
COPY requirements-dllogger.txt ./
ARG DLLOGGER=requirements-dllogger.txt
RUN if [ -n "${DLLOGGER}" ]; then python -m pip install --no-deps -r "${DLLOGGER}"; fi

# --build-arg UID=$(id -u) lets the container write into a mounted folder of yours.
ARG UID=1000
RUN useradd --non-unique --uid "${UID}" --create-home --shell /bin/bash vae \
    && mkdir -p /data \
    && chown vae /data /workspace/vae
COPY --chown=vae . .

USER ${UID}
VOLUME /data

# No entry point of ours: NVIDIA's stays, and any command can follow the image's name.
CMD ["/bin/bash"]
