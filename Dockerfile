# A machine that only converts: `shardkit build`, without torch and DALI (about 1 GB instead of 7).
#
#   docker build -t shardkit .
#   docker run --rm --user "$(id -u):$(id -g)" --network none \
#       -v /pacs_export:/export:ro -v /data:/data shardkit build --source /export --out /data/shards
#
# We have not built this image. Its steps are those of an installation without extras, as CI can run them: a fresh
# environment, `pip install .`, `shardkit --help`.
FROM python:3.12-slim

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY shardkit shardkit
COPY trainer trainer
RUN pip install --no-cache-dir . && shardkit --help > /dev/null

# No root: decoders read files from anyone.
RUN useradd --create-home shardkit
USER shardkit
WORKDIR /home/shardkit
ENTRYPOINT ["shardkit"]
