# The server in a container: `docker run -p 8000:8000 IMAGE` serves the pocket model, which is part of the package.
#
#   docker build -t ip2p-fast .                                   for CPUs
#   docker build -t ip2p-fast:cuda --build-arg VARIANT=cuda .     for NVIDIA GPUs: docker run --gpus all ...
#   docker build -t ip2p-fast:ray --build-arg EXTRAS=torch,ray .  for a Ray cluster (docs/serving.md)
#
# No model is downloaded here. `serve --model HUB_ID` downloads into /cache when it starts: mount a volume there.
ARG VARIANT=cpu

FROM python:3.11.14-slim-bookworm AS cpu-run
# torch's OpenMP, and Ray's probes
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 wget \
    && rm -rf /var/lib/apt/lists/*

FROM cpu-run AS cpu-tools
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
ENV TORCH_INDEX=https://download.pytorch.org/whl/cpu IP2P_FAST_BUILD=cpu

# torch brings CUDA's libraries along; the base has what lets the driver in.
FROM nvidia/cuda:13.0.2-base-ubuntu24.04 AS cuda-run
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 libgomp1 wget \
    && rm -rf /var/lib/apt/lists/*

FROM nvidia/cuda:13.0.2-devel-ubuntu24.04 AS cuda-tools
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-dev python3-venv g++ \
    && rm -rf /var/lib/apt/lists/*
ENV TORCH_INDEX=https://download.pytorch.org/whl/cu130 IP2P_FAST_BUILD=cuda TORCH_CUDA_ARCH_LIST="8.0;9.0;10.0+PTX"

# What the package needs, without the package: this layer stays while the code changes.
FROM ${VARIANT}-tools AS dependencies
ARG EXTRAS=torch,onnx,openvino,serve
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python3 -m venv /opt/venv
COPY constraints.txt ./
# EXTRAS without torch make a small image that runs exported bundles, the pocket model among them.
RUN --mount=type=cache,target=/root/.cache/pip \
    case ",$EXTRAS," in *,torch,*) \
        /opt/venv/bin/pip install -c constraints.txt --extra-index-url "$TORCH_INDEX" torch ;; \
    esac
COPY pyproject.toml examples/docker/requirements.py ./
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/python requirements.py pyproject.toml "$EXTRAS" > requirements.txt \
    && /opt/venv/bin/pip install -c constraints.txt -r requirements.txt

FROM dependencies AS build
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install -c constraints.txt setuptools wheel ninja pybind11
COPY . .
RUN case ",$EXTRAS," in *,torch,*) ;; *) export IP2P_FAST_BUILD=none ;; esac \
    && /opt/venv/bin/pip wheel --no-deps --no-build-isolation -w /wheels .

FROM ${VARIANT}-run
RUN useradd --uid 10001 --create-home server \
    && install -d -o server /cache
COPY --from=dependencies /opt/venv /opt/venv
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    /opt/venv/bin/pip install --no-deps --no-cache-dir /wheels/*.whl
ENV PATH=/opt/venv/bin:$PATH HF_HOME=/cache PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
USER 10001
WORKDIR /home/server
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
# SIGTERM finishes what is in flight, for up to --grace seconds: `docker stop --timeout 40`
ENTRYPOINT ["ip2p-fast"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
