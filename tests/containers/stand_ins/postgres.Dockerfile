# The image of compose.yaml. One that hands its command to su must keep it from su's own options; others stay as they are.
FROM docker.io/library/postgres:18
RUN sed -i 's|exec su \(.*\) "$data" "$@"$|exec su \1 -- "$data" "$@"|' "$(command -v docker-entrypoint.sh)"
