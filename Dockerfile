# Images of Tideline: static binaries, nothing else. docs/compose.md says how they are run.
#
#   docker build --target node .        sockets and the page
#   docker build --target functions .   the Lambda functions in their HTTP mode, and the helper of compose.yaml

FROM node:22-bookworm-slim AS page
WORKDIR /src/web
COPY web/package.json web/package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY web ./
# The build writes to ../node/page/dist.
RUN mkdir -p ../node/page && npm run build

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY node ./node
COPY shared ./shared
COPY functions ./functions
COPY local ./local
COPY --from=page /src/node/page/dist ./node/page/dist
ARG VERSION=container
ENV CGO_ENABLED=0
RUN mkdir -p /out/bin /out/empty \
    && go build -trimpath -ldflags "-s -w -X tideline/node/server.version=${VERSION}" -o /out/bin/node ./node \
    && go build -trimpath -ldflags "-s -w" -o /out/bin/compose ./local/compose \
    && for name in session todos tasks outbox; do go build -trimpath -ldflags "-s -w" -o /out/bin/$name ./functions/$name/bootstrap; done

FROM scratch AS node
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/bin/node /out/bin/compose /
USER 65532:65532
EXPOSE 8000
ENTRYPOINT ["/node"]

FROM scratch AS functions
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/bin/session /out/bin/todos /out/bin/tasks /out/bin/outbox /out/bin/compose /
# Volumes that are mounted here for the first time take these owners.
COPY --from=build --chown=65532:65532 /out/empty /secrets
COPY --from=build --chown=65532:65532 /out/empty /files
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/compose"]
