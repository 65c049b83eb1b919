# One image, one binary: the role is the first argument.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package tollgate \
    && cp target/release/tollgate /tollgate

# glibc, root certificates, no shell.
FROM gcr.io/distroless/cc-debian12
COPY --from=build /tollgate /usr/local/bin/tollgate
ENV TOLLGATE_CONFIG=/etc/tollgate/tollgate.yaml
USER 65532:65532
# HTTP, gRPC, delivery to ingress, delivery to guardrail, reports, health and metrics.
EXPOSE 8080 8081 8082 8083 8084 9090
ENTRYPOINT ["/usr/local/bin/tollgate"]
