# A small image with the server alone. Build: docker build -t roomcast .
FROM rust:1-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --locked --release

FROM debian:bookworm-slim
# Certificates for rediss://.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/roomcast /usr/local/bin/roomcast
USER nobody
ENV ROOMCAST_LISTEN=0.0.0.0:8080
EXPOSE 8080
# SIGTERM drains; orchestrators should allow more than --drain-timeout.
STOPSIGNAL SIGTERM
ENTRYPOINT ["roomcast"]
