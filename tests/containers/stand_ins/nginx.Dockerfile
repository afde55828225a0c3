# Debian's nginx, where the image of compose.yaml can't be had.
FROM docker.io/library/python:3.11-slim
RUN apt-get update -q && apt-get install -y -q --no-install-recommends nginx-light \
    && ln -sf /dev/stderr /var/log/nginx/error.log && rm -rf /var/lib/apt/lists
