# The balancer in front of several replicas of the service: HAProxy, from Debian.
#
#   docker compose -f compose.scale.yaml up --scale serve=3
#
# On the base image of the service, so that there is one to keep up to date.
FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends 'haproxy=2.6.*' \
    && rm -rf /var/lib/apt/lists/*
COPY docker/balancer.cfg /etc/haproxy/haproxy.cfg
RUN haproxy -c -f /etc/haproxy/haproxy.cfg
USER 10001:10001
EXPOSE 8000 8404
# Finish what is running, accept nothing new.
STOPSIGNAL SIGUSR1
HEALTHCHECK --interval=3s --timeout=3s --start-period=60s --retries=5 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/8404; echo 'GET /ready HTTP/1.0\r\n\r' >&3; read -r _ code _ <&3; [ $code = 200 ]"]
ENTRYPOINT ["haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"]
