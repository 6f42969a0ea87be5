# coattn serve for an exported model: CPU only, without torch, as a user without rights.
#
#   coattn export runs/mine/model exported
#   docker build --tag coattn .
#   docker run --rm --read-only --publish 127.0.0.1:8000:8000 --volume "$PWD/exported:/exported:ro" coattn
FROM python:3.12-slim AS build
COPY pyproject.toml README.md LICENSE /source/
COPY src /source/src
COPY configs /source/configs
RUN pip install --no-cache-dir --prefix=/installed "/source[serve,runtime]"

FROM python:3.12-slim
COPY --from=build /installed /usr/local
RUN useradd --system --no-create-home --shell /usr/sbin/nologin coattn
USER coattn
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=3)"]
ENTRYPOINT ["coattn", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/exported"]
