# The backend: one image for web, engine and trainer. A GPU needs no other image, only the device:
# see docker-compose.gpu.yml.

FROM python:3.12-slim AS build
WORKDIR /source
RUN python -m venv /opt/backend
# the libraries first: they are 6 GB and change seldom
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; print('\n'.join(project['dependencies'] + project['optional-dependencies']['export']))" > requirements.txt \
    && /opt/backend/bin/pip install --no-cache-dir -r requirements.txt -c constraints.txt
COPY README.md ./
COPY ml_backend ml_backend
RUN /opt/backend/bin/pip install --no-cache-dir --no-deps .

FROM python:3.12-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home backend \
    && install -d -o backend -g backend /data
COPY --from=build /opt/backend /opt/backend
ENV PATH=/opt/backend/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=9090 \
    DATA_DIR=/data
USER backend
VOLUME /data
EXPOSE 9090
ENTRYPOINT ["ml-backend"]
CMD ["serve"]
