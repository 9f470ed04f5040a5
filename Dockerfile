# syntax=docker/dockerfile:1
# Lamina in a small image: no shell, user 65532, nothing written but /var/cache/lamina and
# /var/lib/lamina.
#
#   docker build -t lamina .
#   docker run --read-only -e ORIGIN=http://origin:9000 -p 8080:8080 lamina
#   docker run --read-only -v lamina-cache:/var/cache/lamina \
#       -v ./lamina.yaml:/etc/lamina/lamina.yaml:ro -p 8080:8080 lamina
#
# Its health is asked by `lamina health`, over the admin listener that the configuration
# names; that is on loopback unless your configuration gives it another address and a token.
# An orchestrator may ask /livez and /readyz there instead.

FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        clang lld nodejs npm python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && rustup target add wasm32-unknown-unknown
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    --mount=type=cache,target=/src/plugins/target \
    plugins/build.sh --install --strict \
    && cargo build --profile dist --locked -p lamina \
    && install -D -m 0755 target/dist/lamina /out/usr/local/bin/lamina \
    && install -D -m 0644 -t /out/usr/share/lamina/plugins plugins/dist/*.wasm \
    && install -D -m 0644 config/examples/minimal.yaml /out/etc/lamina/lamina.yaml \
    && install -D -m 0644 -t /out/usr/share/lamina LICENSE config/reference.yaml \
    && mkdir -m 0700 /empty

FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="Lamina" \
      org.opencontainers.image.description="An edge cache gateway with sandboxed WASM plugins" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/ /
# Compiled plugins are kept here; it must be the process's own, with mode 0700.
COPY --from=build --chown=65532:65532 /empty /var/cache/lamina
# For certificates: acme.storage.
COPY --from=build --chown=65532:65532 /empty /var/lib/lamina
ENV LAMINA_CONFIG=/etc/lamina/lamina.yaml \
    LAMINA_CACHE_DIR=/var/cache/lamina \
    LISTEN=0.0.0.0:8080
USER 65532:65532
VOLUME /var/cache/lamina /var/lib/lamina
# 8443 over UDP is HTTP/3.
EXPOSE 8080 8443 8443/udp 9180
STOPSIGNAL SIGTERM
# Asks the admin listener of LAMINA_CONFIG, or LAMINA_ADMIN where that is set.
HEALTHCHECK --interval=10s --timeout=5s --start-period=1m --retries=3 \
    CMD ["/usr/local/bin/lamina", "health"]
ENTRYPOINT ["/usr/local/bin/lamina"]
CMD ["run"]
