# CPU:   docker build --tag unseen .
# CUDA:  docker build --tag unseen:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 --build-arg EXTRAS=app,figures,tables .
#
# Serve a run or a saved model that lies in ./runs:
#   docker run --rm --publish 127.0.0.1:8000:8000 --volume "$PWD/runs:/data:ro" unseen serve /data/mine --host 0.0.0.0
# Train, with the images in ./data (add --gpus all to the CUDA image):
#   docker run --rm --volume "$PWD:/data" --user "$(id -u):$(id -g)" unseen train /data/birds --output /data/runs/birds
FROM python:3.12-slim AS build

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=app,figures,tables,cpu

RUN python -m venv /opt/unseen
ENV PATH=/opt/unseen/bin:$PATH PIP_NO_CACHE_DIR=1
RUN pip install --index-url "$TORCH_INDEX" torch torchvision
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install ".[$EXTRAS]"

FROM python:3.12-slim

COPY --from=build /opt/unseen /opt/unseen
RUN useradd --create-home --uid 1000 unseen && mkdir /data /cache && chown unseen /data /cache && chmod 1777 /cache
ENV PATH=/opt/unseen/bin:$PATH UNSEEN_CACHE=/cache HF_HOME=/cache/huggingface MPLCONFIGDIR=/cache/matplotlib
USER unseen
WORKDIR /data
VOLUME ["/cache"]
EXPOSE 8000
ENTRYPOINT ["unseen"]
CMD ["--help"]
