# The pod sandbox of the rig's Kubernetes, which has no registry to pull one from.
FROM scratch
COPY pause /pause
USER 65535:65535
ENTRYPOINT ["/pause"]
