#!/bin/sh
# Starts a streaming standby: the first time it copies the primary, afterwards it goes on where it was.
set -eu
install -d -o postgres -g postgres -m 700 "$PGDATA"
as_postgres="setpriv --reuid=postgres --regid=postgres --init-groups"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    until $as_postgres env PGPASSWORD="$PRIMARY_PASSWORD" pg_basebackup --pgdata="$PGDATA" --checkpoint=fast --write-recovery-conf \
        --dbname="host=$PRIMARY_HOST user=$PRIMARY_USER application_name=standby"; do
        find "$PGDATA" -mindepth 1 -delete
        sleep 1
    done
fi
exec $as_postgres postgres -D "$PGDATA" -c config_file=/etc/postgresql/postgresql.conf \
    -c "shared_buffers=$SHARED_BUFFERS" -c unix_socket_directories=/tmp
