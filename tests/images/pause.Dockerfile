# The pod sandbox of the testbed's Kubernetes, which has no registry.
FROM scratch
COPY pause /pause
USER 65535:65535
ENTRYPOINT ["/pause"]
