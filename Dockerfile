# castfs in a container. Mounting needs the FUSE device and the right to mount:
#
#   docker build -t castfs .
#   docker run --rm -it --device /dev/fuse --cap-add SYS_ADMIN \
#       -v castfs-store:/store -v "$PWD":/src:ro --entrypoint bash castfs
#   # castfs mount "$(castfs ingest -q /src)" /mnt && ls /mnt
#
# - Where AppArmor guards containers (Debian, Ubuntu), add --security-opt apparmor=unconfined: its
#   default profile forbids mount.
# - ingest, list, diff, restore, export need neither the device nor the capability.
# - As an ordinary user: add --user castfs (uid 1000). The device must be open to that user.
# - A mount lives in the container's mount namespace. To see it from the host, mount below a
#   directory bound with -v /host/dir:/mnt/shared:rshared.

FROM python:3.11-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev libfuse3-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
# All that the lock names becomes a checked wheel; only what castfs needs to run is installed below.
COPY requirements.lock /src/
RUN pip wheel --no-cache-dir --require-hashes --wheel-dir /wheels -r /src/requirements.lock
COPY . /src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /src \
    && python -m venv --without-pip /opt/castfs \
    && pip --python /opt/castfs/bin/python install --no-cache-dir --no-index --find-links /wheels castfs

FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends fuse3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 castfs \
    && install -d -m 0700 -o castfs -g castfs /store
COPY --from=build /opt/castfs /opt/castfs
ENV PATH=/opt/castfs/bin:$PATH CASTFS_STORE=/store
VOLUME /store
ENTRYPOINT ["castfs"]
CMD ["--help"]
